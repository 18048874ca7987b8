"""What a data set and a score are: readers, transforms, batches, evaluators, drawings."""
