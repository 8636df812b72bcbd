"""Programs run by hand, and by those who keep the docs: each folder is a subject."""
