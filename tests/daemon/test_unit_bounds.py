"""What the daemon bounds by itself must fit into what its service manager allows."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from llmpower.daemon.loop import STORE_S
from llmpower.daemon.otlp import endpoint
from llmpower.daemon.pace import FINISH_S
from llmpower.daemon.receiving.intake import LAST_S
from llmpower.daemon.receiving.receiver import MAX_PEERS
from llmpower.daemon.receiving.segments import MAX_SEGMENTS
from llmpower.daemon.storing.thread import CLOSE_S
from llmpower.metrics import server

ROOT = Path(__file__).parents[2]
UNIT = (ROOT / "systemd/llmpower.service").read_text("utf-8")
END_S = LAST_S + FINISH_S + STORE_S + CLOSE_S
REST_S = 2.0
"""For all else at the end, none of which waits for anybody."""


def test_an_end_on_the_slowest_disk_is_not_cut_short() -> None:
    assert _setting("TimeoutStopSec") >= END_S + REST_S
    documents = yaml.safe_load_all((ROOT / "kubernetes/llmpower.yaml").read_text("utf-8"))
    (pod,) = (each["spec"]["template"]["spec"] for each in documents if each["kind"] == "DaemonSet")
    assert pod["terminationGracePeriodSeconds"] >= END_S + REST_S


def test_peers_within_their_bounds_leave_descriptors_for_everything_else() -> None:
    bounds = MAX_PEERS + MAX_SEGMENTS + server.MAX_CONNECTIONS + endpoint.MAX_CONNECTIONS
    assert bounds + 64 < _setting("LimitNOFILE")


def _setting(name: str) -> int:
    (value,) = re.findall(rf"^{name}=([0-9]+)$", UNIT, re.MULTILINE)
    return int(value)
