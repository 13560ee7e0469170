"""Whose span it is: stored with the sender's uid, and safe from another user's under the same id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.store import Store, iter_rows, read_measurements
from llmpower.types import MEASUREMENT_COLUMNS, Measurement

Make = Callable[..., Measurement]


def stored(path: Path) -> dict[object, object]:
    return dict(iter_rows(path, columns=("span_id", "uid")))  # type: ignore[arg-type] # pairs


def test_the_uid_is_kept_and_handed_out_to_who_asks(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    store.append([make_measurement(1, uid=1000), make_measurement(2, uid=0), make_measurement(3)])
    store.close()
    assert stored(path) == {"span-1": 1000, "span-2": 0, "span-3": None}
    assert tuple(read_measurements(path).columns) == MEASUREMENT_COLUMNS
    uids = read_measurements(path, columns=(*MEASUREMENT_COLUMNS, "uid"))["uid"]
    assert uids.dtype == "Int64"
    assert uids.isna().tolist() == [False, False, True]
    assert uids[:2].tolist() == [1000, 0]


def test_who_takes_anothers_id_first_takes_nothing_from_him(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    assert store.append([make_measurement(1, uid=666, gpu_energy_j=0.0)]) == (1, 0)
    # He may even know under which id the other's would be kept.
    assert store.append([make_measurement(1, span_id="span-1@1000", uid=666, gpu_energy_j=0.0)]) == (1, 0)
    assert store.append([make_measurement(1, uid=1000)]) == (1, 0)
    assert store.append([make_measurement(1, uid=1000)]) == (0, 0), "sent twice, stored once"
    store.close()
    assert stored(path) == {"span-1": 666, "span-1@1000@666": 666, "span-1@1000": 1000}


def test_only_an_id_that_ends_like_one_with_a_users_number_gets_ones_own(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    ids = ("1", "chat-1@node", "chat-1@", "a@7")
    store.append([make_measurement(1, span_id=span_id, uid=1000) for span_id in ids])
    assert store.known([(span_id, 1000) for span_id in ids]) == {(span_id, 1000) for span_id in ids}
    store.close()
    assert set(stored(path)) == {"1", "chat-1@node", "chat-1@", "a@7@1000"}


def test_two_users_with_one_id_in_one_batch(path: Path, make_measurement: Make) -> None:
    batch = [make_measurement(n, uid=uid) for n in range(100) for uid in (1, 2, 1)]
    store = Store(path)
    assert store.append(batch) == (200, 0)
    assert store.append(batch) == (0, 0)
    store.close()
    assert len(stored(path)) == 200


def test_a_span_stored_before_owners_were_known_is_still_a_duplicate(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    store.append([make_measurement(1)])
    assert store.append([make_measurement(1, uid=1000)]) == (0, 0)
    assert store.append([make_measurement(2, uid=1000)]) == (1, 0)
    assert store.append([make_measurement(2)]) == (0, 0)
    store.close()


def test_what_is_known_is_known_as_whose_it_is(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    store.append([make_measurement(number) for number in range(300)])
    store.append([make_measurement(number, uid=1) for number in range(300, 600)])
    # Another user's of the same id, and an id that looks like one with a user's behind it.
    store.append([make_measurement(300, uid=2), make_measurement(1, span_id="a@7", uid=1)])
    mine = [(f"span-{number}", 1) for number in range(700)]
    assert store.known(mine) == set(mine[:600])
    assert store.known([("span-300", 2), ("span-301", 2), ("a@7", 1), ("a@7", 2)]) == {("span-300", 2), ("a@7", 1)}
    assert store.known([("span-300", 1), ("span-300", 2), ("span-300", 3)]) == {("span-300", 1), ("span-300", 2)}
    assert store.known([]) == set()
    store.close()


@given(
    sent=st.lists(
        st.tuples(st.sampled_from(["a", "a@1", "a@2", "a@1@2", "a@", "@1", "b"]), st.sampled_from([None, 0, 1, 2])),
        max_size=40,
    )
)
@settings(deadline=None)
def test_nobody_ever_costs_anybody_else_a_row(
    sent: list[tuple[str, int | None]], make_measurement: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("owners") / "spans.db"
    # Spans without an owner come from before there were owners, and before ids with one's uid behind them.
    sent = [(span_id.partition("@")[0] if uid is None else span_id, uid) for span_id, uid in sent]
    sent.sort(key=lambda each: each[1] is not None)
    store = Store(path)
    new = sum(store.append([make_measurement(1, span_id=span_id, uid=uid)]).new for span_id, uid in sent)
    store.close()
    ownerless = {span_id for span_id, uid in sent if uid is None}
    owned = {(span_id, uid) for span_id, uid in sent if uid is not None}
    kept = stored(path)
    assert len(kept) == new
    assert sum(uid is None for uid in kept.values()) == len(ownerless)
    for user in (0, 1, 2):
        own = [span_id for span_id, uid in kept.items() if uid == user]
        theirs = {span_id for span_id, uid in owned if uid == user}
        assert len(own) <= len(theirs)
        assert len(own) >= len({span_id for span_id in theirs if span_id not in ownerless})
