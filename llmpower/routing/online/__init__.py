"""One query at a time, by a policy's prices."""
