"""What ``docs/benchmarks.md`` is made of: a section a benchmark, each from its committed results."""
