"""Heads for clips: from maps over time to one answer a clip."""
