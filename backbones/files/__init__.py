"""Files of weights: from bytes on disk to the tensors of a network. Nothing in them is run."""
