"""A plan: made, held against others, doubted, and read back into the workload's rows."""
