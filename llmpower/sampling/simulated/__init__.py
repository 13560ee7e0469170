"""Holds the simulated ``libnvidia-ml.so.1`` and nothing else, so that it can stand in LD_LIBRARY_PATH by itself."""
