"""Action recognition: clips, the frames that stand for them, and their scores."""
