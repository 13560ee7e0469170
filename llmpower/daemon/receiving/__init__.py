"""Spans as programs send them: over the socket and through the spool, each bounded, none trusted."""
