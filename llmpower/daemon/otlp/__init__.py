"""Spans as servers' OpenTelemetry sends them, and whose they are."""
