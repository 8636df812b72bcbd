"""Fewer bits: formats, calibration, sensitivity, Q/DQ in the graph, and whether it pays."""
