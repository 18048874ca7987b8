"""What the readers of all tasks share: compact indexes, splits, fingerprints, processes that look at files."""
