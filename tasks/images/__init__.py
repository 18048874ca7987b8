"""Pictures: decoded, resized, drawn upon."""
