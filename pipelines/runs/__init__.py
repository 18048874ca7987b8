"""The run folder, and the machine that a run is on."""
