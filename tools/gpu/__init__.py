"""What `tools.gpu.smoke` is made of."""
