"""Heads for clips, and what happens over time: from maps to one answer a clip, and segments."""
