"""A session's events, in four forms."""
