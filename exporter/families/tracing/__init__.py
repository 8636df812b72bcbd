"""Following a pipeline's own code: what it does with texts, pictures and noise, and the parts that play it again."""
