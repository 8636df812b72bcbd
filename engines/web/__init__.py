"""A run time for browsers: a bundle as a static folder that draws on its visitor's machine."""
