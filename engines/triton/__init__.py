"""A bundle as a model repository of NVIDIA's Triton Inference Server: networks as models, and the pipeline as one in Python."""
