"""Pictures in and out: PNG, provenance, initial images, noise, tiles."""
