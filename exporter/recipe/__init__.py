"""What is asked: the schema of recipes, their YAML with line numbers, and the sentences that say what is wrong with one."""
