"""Scores of anybody's result files."""
