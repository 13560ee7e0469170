"""A device without an energy counter: joules up to any moment from readings of its power."""
