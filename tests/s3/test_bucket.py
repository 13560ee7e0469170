"""A fleet's data set in a bucket: real requests of S3 to a real server on this machine, by the commands themselves.

Needs moto's server and s3fs (the extra ``s3``); ``make test-s3`` has both, or fails.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from forked import run_forked
from msgspec import structs

from llmpower.store import Store
from llmpower.types import Measurement

DEMANDED = os.environ.get("LLMPOWER_S3_TESTS") == "1"
MISSING = [name for name in ("boto3", "flask", "flask_cors", "moto", "s3fs") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING) and not DEMANDED,
    reason=f"{', '.join(MISSING)} not installed (pip install 'llmpower[s3]'); see make test-s3",
)

Make = Callable[..., Measurement]
LENGTHS = (8, 32, 128)


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """That of somebody whose bucket lies on a server of this machine."""
    assert not MISSING, f"{', '.join(MISSING)} not installed; make test-s3 does so"
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "here",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    server.stop()


@pytest.fixture(scope="module")
def bucket(environ: Mapping[str, str]) -> Any:
    """Boto's own view of an empty bucket."""
    import boto3

    store = boto3.resource(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        aws_access_key_id="here",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    return store.create_bucket(Bucket="measurements")


@pytest.fixture
def stores(tmp_path: Path, make_measurement: Make) -> list[Path]:
    """Those of two hosts, on two days each."""
    made = []
    for host in ("one", "two"):
        rows = [
            make_measurement(
                number,
                input_tokens=τin,
                output_tokens=τout,
                gpu_energy_j=50 + 0.2 * τin + 4.0 * τout,
                started_at=datetime(2026, 1, 1 + number % 2, tzinfo=UTC) + timedelta(minutes=number),
            )
            for number, (τin, τout) in enumerate((τin, τout) for τin in LENGTHS for τout in LENGTHS)
        ]
        store = Store(tmp_path / f"{host}.db")
        store.append([structs.replace(row, span=structs.replace(row.span, hostname=host)) for row in rows])
        store.close()
        made.append(tmp_path / f"{host}.db")
    return made


def test_a_fleet_in_a_bucket_is_what_it_is_in_a_directory(
    bucket: Any, environ: Mapping[str, str], stores: list[Path], tmp_path: Path
) -> None:
    place = f"s3://{bucket.name}/fleet"
    for store in stores:
        for out in (place, tmp_path / "fleet"):
            done = run_forked("export", "--partition", "--store", store, "-o", out, env=environ)
            assert done.returncode == 0, done.stderr
            assert done.stderr == f"9 new rows from {store} to {out}, in 2 new files\n"
    again = run_forked("export", "--partition", "--store", stores[0], "-o", place, env=environ)
    assert again.stderr == f"0 new rows from {stores[0]} to {place}, in 0 new files\n"

    kept = {found.key: found.get()["Body"].read() for found in bucket.objects.all() if found.size}
    here = {str(path.relative_to(tmp_path)): path.read_bytes() for path in (tmp_path / "fleet").rglob("*.parquet")}
    assert kept == here

    options = ("--form", "cached", "--group-by", "model_name,system", "--json")
    fits = [run_forked("fit", source, *options, env=environ) for source in (place, tmp_path / "fleet")]
    assert [done.returncode for done in fits] == [0, 0], fits[0].stderr
    there, locally = (json.loads(done.stdout) for done in fits)
    assert there["models"] == locally["models"]
    assert there["models"][0]["energy"]["n_obs"] == 18


@pytest.mark.parametrize("refused", ["no credentials to write", "no credentials to read", "nothing there"])
def test_what_is_refused_is_one_line(refused: str, bucket: Any, environ: Mapping[str, str], stores: list[Path]) -> None:
    place = f"s3://{bucket.name}/nothing"
    environ = dict(environ)
    if refused.startswith("no credentials"):
        del environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]
        environ["AWS_EC2_METADATA_DISABLED"] = "true"  # a machine of Amazon's would have some
    export = ("export", "--partition", "--store", stores[0], "-o")
    done = run_forked(*(export if refused.endswith("write") else ("fit",)), place, env=environ)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("llmpower: error: ")
    assert done.stderr.count("\n") == 1
    assert place in done.stderr
