"""From `--launch` and `--workers` to a group of workers that runs a verb."""
