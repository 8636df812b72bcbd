"""LoRAs at run time: files read without torch, brought to the form in which a bundle's networks take them as inputs."""
