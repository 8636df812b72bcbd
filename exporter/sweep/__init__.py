"""Many recipes over one base, built, measured alike and compared: `t2iexport sweep`."""
