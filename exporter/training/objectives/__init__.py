"""What a training minimises, one objective per file."""
