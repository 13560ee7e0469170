"""What ``benchmarks/allocation.py`` is made of: laws of cost, a serving engine, rules that share, the reference."""
