"""Requests beside what models.json predicts for them."""
