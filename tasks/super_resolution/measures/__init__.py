"""How near a picture comes to its truth: the published protocol, and what piq has."""
