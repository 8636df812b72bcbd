"""What of diffusers' pipelines builds: micro models of them, in diffusers' folder format with random weights, and the table."""
