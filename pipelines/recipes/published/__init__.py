"""Published recipes: their settings, and what their authors reached."""
