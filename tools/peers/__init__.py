"""Other libraries beside a bundle, each in an environment of its own."""
