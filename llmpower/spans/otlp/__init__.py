"""Spans of other programs' OpenTelemetry: what OTLP carries in, which of it are requests to a model, and whose twin.

Nothing here listens or knows a clock: the daemon does. Only :mod:`~llmpower.spans.otlp.wire` imports protobuf, and
whoever imports this package has not imported that.
"""
