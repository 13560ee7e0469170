"""A plan: made, compared with others, given its uncertainty, and read back into the workload's rows."""
