"""Spans of other programs' OpenTelemetry: what it carries, what is a request to a model, what a duplicate.

Nothing here listens or knows a clock: the daemon does. Only :mod:`~llmpower.spans.otlp.wire` imports protobuf, and
whoever imports this package has not imported that.
"""
