"""The verbs of the command line, by what they do; `exporter/cli.py` has the list."""
