"""Feature maps in; losses or predictions out."""
