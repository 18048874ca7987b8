"""From a plan to batches: which samples every update takes, and who decodes them."""
