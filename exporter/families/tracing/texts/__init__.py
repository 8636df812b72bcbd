"""How a pipeline reads and encodes texts, and what a bundle keeps of it."""
