"""From a resolved recipe to a trained run."""
