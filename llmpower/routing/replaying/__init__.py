"""A trace played again: the online router beside other dispatchers and beside what was possible."""
