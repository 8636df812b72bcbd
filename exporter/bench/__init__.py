"""How fast a bundle is, beside others, measured in turns."""
