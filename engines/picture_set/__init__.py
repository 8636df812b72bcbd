"""A set of pictures: many prompts drawn in shards, here or on a cluster, so that what was finished is not drawn again."""
