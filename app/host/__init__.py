"""Sessions: one simulated kernel each, one writer at a time."""
