"""Measurements on their way to the store, and a store that is kept working and small."""
