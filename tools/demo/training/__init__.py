"""The stages that train the demo model; run through ``tools.demo.train``."""
