"""What a pipeline does from step to step: what is the same in all of them, what may be left out, and on which grid."""
