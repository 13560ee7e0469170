"""Energy against accuracy: every efficient plan, and the one that somebody asks for."""
