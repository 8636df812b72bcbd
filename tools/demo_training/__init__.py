"""The stages that train the demo model; run through ``tools.train_demo``."""
