"""What ``docs/benchmarks.md`` is made of: one section per benchmark, each from its committed results."""
