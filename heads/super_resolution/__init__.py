"""Heads of super-resolution: tails that upscale, the critic, and the losses of two players."""
