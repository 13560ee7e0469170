"""What a router has learnt, in a file: written by rename, read with every value checked.

It is a program's own memory and nobody's to edit, so records are msgspec's (decision 016) and it says what is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sized
from pathlib import Path
from typing import Literal

import msgspec

from llmpower.exceptions import InputError
from llmpower.files import write_text
from llmpower.routing.policies.document import dump_policy
from llmpower.routing.policies.policy import RoutingPolicy


class RouterState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As :class:`~llmpower.routing.online.router.OnlineRouter` holds it; ``policy`` is the digest of the policy's
    document.

    ``lengths`` are label, buckets to the octave, bucket, n and the sums of τout, τout², τout³; ``memory`` τin, τout
    where it was known, and label. Lists of models are in the policy's order; ``open`` are the numbers of those that the
    quotas had open, ``times_s`` when the queries of ``memory`` came, where that is known; both are ``None`` where a
    version wrote the file that did not keep them.
    """

    policy: str
    period: int
    served: list[int]
    base: list[float]
    prices: list[float]
    response: list[list[float]]
    sum_of_prices: list[float]
    refreshed: int
    until_refresh: int
    until_learning: int
    memory: list[tuple[int, float | None, str | None]]
    lengths: list[tuple[str | None, int, int, float, float, float, float]]
    open: list[int] | None = None
    times_s: list[float | None] | None = None
    schema: Literal["llmpower.router/1"] = "llmpower.router/1"


def policy_digest(policy: RoutingPolicy) -> str:
    """What tells one policy from another."""
    return hashlib.sha256(json.dumps(dump_policy(policy), sort_keys=True).encode()).hexdigest()


def save_state(state: RouterState, path: Path, option: str = "--state") -> None:
    """Write ``state``, whole or not at all.

    Raises:
        InputError: ``path`` (named as ``option``) cannot be written.
    """
    write_text(path, msgspec.json.encode(state).decode("utf-8"), option)


def load_state(path: Path, option: str = "--state") -> RouterState:
    """Read what :func:`save_state` wrote.

    Raises:
        InputError: the file cannot be read (named as ``option``), or is not of this schema.
    """
    advice = "give a file that a router saved, or none to start over"
    try:
        state = msgspec.json.decode(path.read_bytes(), type=RouterState)
    except OSError as error:
        raise InputError(option, path, f"cannot be read ({error.strerror}); {advice}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # msgspec lets Python say what is wrong with a text
        raise InputError(option, path, f"is not a router's state ({error}); {advice}") from error
    lists: tuple[Sized, ...] = (
        state.base,
        state.prices,
        state.served,
        state.sum_of_prices,
        state.response,
        *state.response,
    )
    numbers = range(len(state.base))
    fits = len({len(values) for values in lists}) == 1 and all(number in numbers for number in state.open or ())
    fits = fits and (state.times_s is None or len(state.times_s) == len(state.memory))
    if not fits or min(state.served, default=0) < 0 or sum(state.served) >= max(state.period, 1):
        raise InputError(option, path, f"is not a router's state (its lists do not fit each other); {advice}")
    return state
