"""HTTP basic authentication against bcrypt hashes.

bcrypt is slow on purpose, some 50 ms of a core, and a scraper sends its password with every scrape. The right one is
therefore remembered, as a keyed digest in memory, and costs microseconds from the second scrape on. Wrong ones are
computed one at a time, so whoever guesses keeps one core busy at most, and an unknown user takes as long as a wrong
password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from threading import Lock

_NOBODY = b"$2b$10$" + b"." * 53
"""A hash that no password has."""


class Passwords:
    """Checks ``Authorization`` headers; one object for all threads."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        self._one_at_a_time = Lock()

    def accept(self, authorization: str | None, users: Mapping[str, bytes]) -> bool:
        """Whether the header names one of ``users`` (bcrypt hashes by name) and has that user's password."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        user, password = credentials
        known = users.get(user)
        # The hash is part of the digest: a password that was changed is forgotten with it.
        digest = hmac.digest(self._secret, (known or _NOBODY) + b"\0" + password, hashlib.sha256)
        if known is not None and hmac.compare_digest(self._right.get(user, b""), digest):
            return True
        if not self._compute(password, known or _NOBODY) or known is None:
            return False
        self._right[user] = digest
        return True

    def _compute(self, password: bytes, known: bytes) -> bool:
        import bcrypt  # a megabyte that only those pay for who have set a password

        with self._one_at_a_time:
            try:
                return bcrypt.checkpw(password, known)
            except ValueError:  # longer than bcrypt's 72 bytes, or with a NUL: no such password was ever set
                return False


def _credentials(authorization: str | None) -> tuple[str, bytes] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:  # no base64, or no UTF-8 in it
        return None
