"""How a student learns: options, data, teacher, the loop, memory."""
