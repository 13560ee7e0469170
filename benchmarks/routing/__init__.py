"""What ``benchmarks/routing.py`` is made of: its problem, and peers that need a program of their own.

``ortools_flow`` runs in the peers' environment, which has no llmpower to offer.
"""
