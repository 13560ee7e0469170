"""Measurements: read, checked, and kept as sums of each model's rows."""
