from __future__ import annotations

from base64 import b64encode

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.metrics.passwords import _NOBODY, Passwords

USERS = {
    "prometheus": bcrypt.hashpw(b"right", bcrypt.gensalt(4)),
    "jürgen": bcrypt.hashpw("пароль".encode(), bcrypt.gensalt(4)),
}


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_the_right_password_is_accepted_again_and_again() -> None:
    passwords = Passwords()
    for _ in range(3):
        assert passwords.accept(basic("prometheus", "right"), USERS)
        assert passwords.accept(basic("jürgen", "пароль"), USERS)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !",
        "Basic " + b64encode(b"prometheus").decode(),
        "Basic " + b64encode(b"\xff:right").decode(),
        "Bearer " + b64encode(b"prometheus:right").decode(),
        basic("prometheus", "wrong"),
        basic("prometheus", ""),
        basic("prometheus", "right "),
        basic("nobody", "right"),
        basic("", "right"),
        basic("prometheus", "r" * 1000),
        basic("prometheus", "right\0"),
    ],
)
def test_anything_else_is_not(header: str | None) -> None:
    passwords = Passwords()
    assert passwords.accept(basic("prometheus", "right"), USERS)
    assert not passwords.accept(header, USERS)


def test_a_password_that_was_changed_is_wrong_from_then_on() -> None:
    passwords = Passwords()
    assert passwords.accept(basic("prometheus", "right"), USERS)
    changed = {"prometheus": bcrypt.hashpw(b"new", bcrypt.gensalt(4))}
    assert not passwords.accept(basic("prometheus", "right"), changed)
    assert passwords.accept(basic("prometheus", "new"), changed)


def test_the_hash_of_htpasswd_is_understood() -> None:
    # htpasswd -nbBC 4 prometheus right
    as_htpasswd_writes = USERS["prometheus"].replace(b"$2b$", b"$2y$", 1)
    assert Passwords().accept(basic("prometheus", "right"), {"prometheus": as_htpasswd_writes})


def test_an_unknown_user_is_compared_with_a_hash_that_nothing_has() -> None:
    assert not bcrypt.checkpw(b"", _NOBODY)


@settings(deadline=None)  # the first example imports bcrypt
@given(st.text() | st.binary().map(lambda raw: "Basic " + b64encode(raw).decode()))
def test_no_header_is_a_crash(header: str) -> None:
    assert not Passwords().accept(header, {})
