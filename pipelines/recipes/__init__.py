"""The recipes that come with Trunkline, one module each."""
