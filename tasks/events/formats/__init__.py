"""The files that say the events of long videos, and what others read of what was found."""
