"""Super-resolution: bicubic resizing, measures, and picture files read and written as what they are."""
