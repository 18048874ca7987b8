"""How work runs: engines, optimizers, schedules and checkpoints. Knows nothing of images."""
