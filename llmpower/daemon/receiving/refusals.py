"""Why spans are refused: every reason there is, with what it means to the person who reads it.

They are few and fixed, so each is a label of ``llmpower_spans_rejected_total`` from the start, at 0: the first refusal
is then an increase, which an alert can see. ``docs/runbook.md`` has what to do; a test checks both against the code.
"""

from __future__ import annotations

REASONS = {
    "not_json": "the packet is not a JSON object",
    "too_large": "the packet is longer than 64 KiB, or an OpenTelemetry span than 1 MiB",
    "version": "another version of the protocol",
    "type": "a kind of message that is not known",
    "missing_field": "a field is missing",
    "bad_value": "a field has an impossible value",
    "duplicate": "a span of this id was there already",
    "not_otlp": "a body sent to the OpenTelemetry receiver is not one of its messages",
    "before_boot": "it began before this machine did",
    "in_the_future": "it starts or ends in the future: a clock of another time namespace or boot",
    "other_clock": "its clock differs from ours, and its kernel does not say by how much",
    "overloaded": "more spans waited than are kept",
    "too_many_open": "more spans ran than one user or program may have",
    "too_many_peers": "more connections than are kept",
    "no_descriptors": "the daemon had no file descriptor left for a connection",
    "abandoned": "it began and never ended",
    "unstorable": "the database refuses what it says",
    "torn_line": "a line of the spool was not written to its end",
    "spool_file": "something in the spool is not a file of spans",
    "spool_size": "a file in the spool is larger than allowed",
    "spool_quota": "a user has more files in the spool than allowed",
}
