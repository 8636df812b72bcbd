"""Folders as other tools want them: plain graphs under their names, beside the configs that they read."""
