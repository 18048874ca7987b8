"""Where workers come from: processes of this machine, or Ray."""
