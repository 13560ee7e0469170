"""The DaemonSet: self-consistent, and with arguments by which the daemon runs and its own probe finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT, blocks

DOCUMENTS = list(yaml.safe_load_all((ROOT / "kubernetes/llmpower.yaml").read_text("utf-8")))
DAEMON_SET = next(document for document in DOCUMENTS if document["kind"] == "DaemonSet")
POD = DAEMON_SET["spec"]["template"]["spec"]
(DAEMON,) = POD["containers"]
CONTAINERS = [*POD["initContainers"], DAEMON]
LLMPOWER = [sys.executable, "-m", "llmpower.cli.main"]


def test_it_is_consistent_in_itself() -> None:
    labels = DAEMON_SET["spec"]["template"]["metadata"]["labels"]
    assert DAEMON_SET["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert DAEMON_SET["metadata"]["namespace"] in [document["metadata"]["name"] for document in DOCUMENTS]
    volumes = {volume["name"]: volume["hostPath"]["path"] for volume in POD["volumes"]}
    for container in CONTAINERS:
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == volumes
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert len({container["image"] for container in CONTAINERS}) == 1
    port = str(DAEMON["ports"][0]["containerPort"])
    assert DAEMON_SET["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == port
    assert any(argument.endswith(f"listen-address=0.0.0.0:{port}") for argument in DAEMON["args"])


def test_pods_that_are_measured_have_the_daemon_s_group_and_directory() -> None:
    group = POD["securityContext"]["runAsGroup"]
    pages = [
        yaml.safe_load(block.text)
        for page in ("kubernetes.md", "containers.md")
        for block in blocks(ROOT / "docs" / page)
        if block.language == "yaml" and "supplementalGroups" in block.text
    ]
    assert len(pages) == 2
    for page in pages:
        assert page["spec"]["securityContext"]["supplementalGroups"] == [group]
        assert page["spec"]["volumes"][0]["hostPath"]["path"] == POD["volumes"][0]["hostPath"]["path"]


def test_the_daemon_runs_by_its_arguments_and_the_probe_finds_it(tmp_path: Path) -> None:
    def here(argument: str) -> str:
        for path in ("/run/llmpower", "/var/lib/llmpower"):
            argument = argument.replace(path, str(tmp_path))
        return argument.replace("0.0.0.0:10450", "127.0.0.1:0").replace("backend=nvml", "backend=simulated")

    environment = {**os.environ, **{each["name"]: each["value"] for each in DAEMON["env"]}}
    probe = DAEMON["livenessProbe"]["exec"]["command"]
    assert probe[0] == "llmpower"
    command, ask = [*LLMPOWER, *map(here, DAEMON["args"])], [*LLMPOWER, *map(here, probe[1:])]
    daemon = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            if "metrics http" in line:
                break
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
        assert asked.returncode == 0, asked.stderr
    finally:
        daemon.terminate()
        daemon.communicate(timeout=60)
    after = subprocess.run(ask, capture_output=True, timeout=60, check=False)
    assert after.returncode != 0
    assert {path.suffix for path in tmp_path.iterdir()} >= {".db"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_kubernetes_knows_every_field(document: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="70 MB of schemas: pip install kubernetes-validate")
    validate.validate(document, "1.37", strict=True)
