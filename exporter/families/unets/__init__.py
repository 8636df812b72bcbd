"""What Stable Diffusion and SDXL share: CLIP's text towers, UNets and their VAE under the uniform contract."""
