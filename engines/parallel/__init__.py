"""Parallel sampling: many steps of one picture in one batch."""
