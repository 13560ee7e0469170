"""What ``benchmarks/accuracy.py`` is made of: loads, workers, figures.

``schedule`` and ``peers`` run in the peers' own environment too, which has neither llmpower nor NumPy to offer: they
import nothing but the standard library and the peer itself.
"""
