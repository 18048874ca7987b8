"""A class for every pixel: heads, what they ask of their trunk, and their losses."""
