"""Heads that find events in the features of a video."""
