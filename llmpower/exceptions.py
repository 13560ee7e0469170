"""One error base for the whole program.

The command line turns any :class:`LlmpowerError` into one line on stderr and the error's own exit code, so a
library function raises what it knows and never prints. :class:`InputError` is for everything the user can put
right: it must name the field, the value found there, and what to do next.
"""

from __future__ import annotations


class LlmpowerError(Exception):
    """The work failed for a reason that we can state. Exit code 1."""

    exit_code = 1


class InputError(LlmpowerError):
    """What we were given cannot be used, and the user can fix it. Exit code 2.

    ``field`` is the option, column, key or file concerned; ``value`` what was found there; ``advice`` one sentence
    that says what is wrong with it and what to do.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, advice: str) -> None:
        self.field = field
        self.value = value
        self.advice = advice
        super().__init__(f"{field} = {value}: {advice}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str]]:
        """As it is: a worker's error is told by another process."""
        return type(self), (self.field, self.value, self.advice)


class DeviceError(InputError):
    """A power source cannot be opened: no library, the wrong library, or one that refuses to start."""


class NoDriverError(DeviceError):
    """The library that a driver brings is not there."""


class StoreError(InputError):
    """The measurements database cannot be used: another program's, from a newer version, out of reach."""


class StoreUnavailableError(StoreError):
    """It cannot be used now, and may be later as it is: the disk is full, read-only or failing, or it is locked."""


class StoreDamagedError(StoreError):
    """It is ours and its content is damaged."""


class DaemonUnreachableError(InputError):
    """No daemon answers on the socket."""


class FitError(InputError):
    """Measurements that cannot carry the model asked for: too few cells, constant columns, rank deficiency."""


class InfeasibleError(InputError):
    """No routing plan can satisfy the constraints asked for."""
