"""The build as stages: their keys, the store that keeps their results, and the plan that orders them."""
