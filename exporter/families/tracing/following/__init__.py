"""Running a pipeline of diffusers with stand-ins, and noting what its code does: with texts, noise, sizes and its networks."""
