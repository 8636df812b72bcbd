"""Where weights come from: diffusers folders, single files, the hub, LoRAs, architectures without weights; and what fits what."""
