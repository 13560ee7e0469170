"""How much is kept, and by which time ages are judged.

Deleting by age trusts the clock, and a clock can be wrong: one that jumps a year ahead makes everything a year older.
So a jump is not believed at once. Ages are counted on from the time before it, by the clock that counts since boot, and
only a clock that has insisted for three days is right after all: a weekend, in which somebody has read the warning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmpower.exceptions import InputError

AGE_OPTION = "retention.time"
SIZE_OPTION = "retention.size"

LEAP_S = 86_400.0
"""So far ahead of what was reckoned, the wall clock is in doubt."""

DOUBT_S = 3 * 86_400.0
"""How long a clock that leapt must go on to be believed."""

MIN_AGE_S = 3600
MAX_AGE_S = 100 * 365 * 86_400
MIN_SIZE_BYTES = 1 << 20

_AGE_UNITS_S = {"y": 365 * 86_400, "w": 7 * 86_400, "d": 86_400, "h": 3600}
_SIZE_UNITS_BYTES = {"MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "PB": 1 << 50}


@dataclass(frozen=True, slots=True)
class Retention:
    """What is deleted: spans that began more than ``age_s`` ago, and while the database holds more than ``size_bytes``,
    those that were stored first. ``None`` is no limit.
    """

    age_s: int | None = None
    size_bytes: int | None = None


def parse_age(value: object) -> int | None:
    """``"90d"``, ``"1y26w"`` or ``"36h"`` in seconds, of an hour or more; ``"0"`` is no limit.

    Minutes are not offered: ``6m`` would mean them, to whoever meant months, and delete nearly everything.

    Raises:
        InputError: it is none of these.
    """
    if value in ("0", 0) and not isinstance(value, bool):
        return None
    parts = _parts(value, "".join(_AGE_UNITS_S))
    age_s = sum(int(number) * _AGE_UNITS_S[unit] for number, unit in parts)
    units = [unit for _, unit in parts]
    in_order = units == [unit for unit in _AGE_UNITS_S if unit in units]
    if not in_order or not MIN_AGE_S <= age_s <= MAX_AGE_S:
        advice = "is not a length of time; write years, weeks, days and hours such as 90d or 1y26w (1h to 100y), or 0"
        raise InputError(AGE_OPTION, value, advice)
    return age_s


def parse_size(value: object) -> int | None:
    """``"2GB"`` or ``"500MB"`` in bytes (1 MB is 1024² bytes, as Prometheus has it), 1 MB or more; ``"0"`` is no limit.

    Raises:
        InputError: it is none of these.
    """
    if value in ("0", 0) and not isinstance(value, bool):
        return None
    found = re.fullmatch(r"([0-9]{1,15})([MGTP]B)", value) if isinstance(value, str) else None
    size_bytes = int(found[1]) * _SIZE_UNITS_BYTES[found[2]] if found else 0
    if not MIN_SIZE_BYTES <= size_bytes <= 1 << 60:
        raise InputError(SIZE_OPTION, value, "is not a size; write MB, GB or TB such as 2GB (1MB to 1024PB), or 0")
    return size_bytes


class Reckoning:
    """The time by which ages are judged.

    Args:
        believed_s: the latest time that was believed, in seconds since 1970; ``None`` where nothing was kept.
        doubted_s: for how long a later one has been in doubt since.
    """

    def __init__(self, believed_s: float | None = None, doubted_s: float = 0.0) -> None:
        self.believed_s = believed_s
        self.doubted_s = doubted_s
        self.ahead_s = 0.0
        """How far the wall clock is ahead of what is believed, while it is in doubt; else 0."""
        self._uptime_s: float | None = None

    def now_s(self, utc_s: float, uptime_s: float) -> float:
        """Seconds since 1970, by the wall clock (``utc_s``) or what is believed in its place.

        ``uptime_s`` counts since boot, suspended time included, and knows nothing of the wall clock.
        """
        passed_s = 0.0 if self._uptime_s is None else uptime_s - self._uptime_s
        self._uptime_s = uptime_s
        if self.believed_s is None:
            self.believed_s = utc_s
        self.believed_s += passed_s
        ahead_s = utc_s - self.believed_s
        if ahead_s > LEAP_S:
            self.doubted_s += passed_s
            if self.doubted_s < DOUBT_S:
                self.ahead_s = ahead_s
                return self.believed_s
        # A clock that was put back deletes less than it might, which harms nobody: what is believed stays.
        self.doubted_s = self.ahead_s = 0.0
        self.believed_s = max(self.believed_s, utc_s)
        return utc_s


def _parts(value: object, units: str) -> list[tuple[str, str]]:
    """``"1y26w"`` → ``[("1", "y"), ("26", "w")]``; nothing for what is not of this kind."""
    if not isinstance(value, str) or not re.fullmatch(rf"(?:[0-9]{{1,9}}[{units}])+", value):
        return []
    return re.findall(rf"([0-9]+)([{units}])", value)
