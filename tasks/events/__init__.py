"""Events in long videos: found, bounded and scored."""
