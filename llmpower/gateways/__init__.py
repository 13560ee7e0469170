"""The online router inside gateways that are not ours: one file a gateway, and what all of them need in ``desk.py``."""
