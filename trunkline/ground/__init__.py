"""What every floor stands on: errors, keys, nearest names, storage, progress. Imports nothing of ours."""
