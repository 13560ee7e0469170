"""Samples and spans in, measurements and a snapshot out; what is asked of the machine for that."""
