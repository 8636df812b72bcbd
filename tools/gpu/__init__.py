"""What `tools.gpu_smoke` is made of."""
