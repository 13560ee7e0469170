"""What ``benchmarks/sampling_thread.py`` is made of: samplers beside programs, and what the machine allows at all."""
