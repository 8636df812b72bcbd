"""What the code knows, as text: marked blocks in Markdown pages, and whole files, written by `python -m tools.docs`."""
