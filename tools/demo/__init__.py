"""The demo model: its scenes and captions, its training, its pictures and their score."""
