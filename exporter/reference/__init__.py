"""What the source does: recordings of its pipeline and of single parts, on noise that is kept."""
