"""What makes an update: gradients and buffers summed, the optimizer, the schedule, the average; with and without DeepSpeed."""
