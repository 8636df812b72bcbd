"""A pipeline of diffusers as a whole: how it is put together, its relatives, its stages, and the arguments of its call."""
