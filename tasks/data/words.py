"""What people call the splits of a data set."""

WORDS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""The names of folders, files and columns, by split."""
