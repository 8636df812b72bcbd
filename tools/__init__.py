"""Programs run by hand: the demo model's scenes, training and scoring."""
