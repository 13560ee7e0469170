"""Measuring in the program itself, without a daemon: for notebooks, and for tests of one's own."""

from llmpower.inprocess.monitor import Monitor

__all__ = ["Monitor"]
