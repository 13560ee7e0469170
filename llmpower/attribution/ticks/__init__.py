"""A device with an energy counter: from reads of it, which moves now and then, to joules up to any moment."""
