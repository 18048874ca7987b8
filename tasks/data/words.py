"""What people call the splits of a data set."""

WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""The names of folders, files and columns, by split."""

ALL_WORDS = tuple(word for words in WORDS.values() for word in words)
