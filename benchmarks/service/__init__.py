"""What ``benchmarks/daemon.py`` is made of: the program that reports spans, and what a process costs."""
