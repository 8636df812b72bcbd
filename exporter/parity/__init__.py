"""The blame table: what is compared, by which metric, within which limits."""
