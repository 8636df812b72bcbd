"""Where tasks run that need not run here: what one asks of a machine, and a Ray cluster that has it."""
