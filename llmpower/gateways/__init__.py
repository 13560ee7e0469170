"""The online router inside existing gateways: one file per gateway, and what all of them need in ``desk.py``."""
