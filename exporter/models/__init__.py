"""What model files say of themselves: statements, leftovers, architectures, kinds. Reads headers and configs, without torch."""
