"""TLS and passwords for ``/metrics``, in the file that every Prometheus exporter takes.

The schema is that of the Prometheus exporter-toolkit (``--web.config.file``), so a fleet's one file serves
node_exporter and llmpower alike. It is read strictly, as the toolkit reads it: a misspelt key would leave access open
that its owner believes closed. For the same reason what Python's ``ssl`` cannot keep (asking for a client certificate
without verifying it, several curves) is refused, never ignored. An empty file is one without TLS and passwords.

Errors name keys, lines and files and never what stands in them: hashes of passwords stay out of every log.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpower.exceptions import InputError

OPTION = "--web.config.file"

_TLS_KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
)
_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_HEADERS = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
)
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What a connection must bring to be answered. ``users`` are bcrypt hashes by name; none is no password."""

    tls: ssl.SSLContext | None = None
    client_sans: frozenset[str] = frozenset()
    users: Mapping[str, bytes] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    """Everything that was read; a change to any of them asks for another reading."""


def load_web_config(file: Path) -> WebConfig:
    """Read ``file`` and the certificates that it names (relative paths are relative to it).

    Raises:
        InputError: something cannot be read, means nothing, or cannot be kept here.
    """
    top = _Table(file, "", _parse(file), ("tls_server_config", "http_server_config", "basic_auth_users"))
    tls = top.table("tls_server_config", _TLS_KEYS)
    http = top.table("http_server_config", ("http2", "headers"))
    http.boolean("http2")  # HTTP/1.1 is what we speak, and what a client falls back to
    headers = http.table("headers", _HEADERS)
    users = top.table("basic_auth_users", None)
    context, files = _context(tls) if tls.content else (None, ())
    return WebConfig(
        tls=context,
        client_sans=frozenset(tls.texts("client_allowed_sans")),
        users={name: _hash(users, name) for name in users.content},
        headers={name: _header(headers, name) for name in headers.content},
        files=(file, *files),
    )


def _parse(file: Path) -> Mapping[str, Any]:
    import yaml  # half a megabyte that only those pay for who have such a file

    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(OPTION, file, f"cannot be read ({error.strerror}); check the path and its owner") from error
    except UnicodeDecodeError as error:
        raise InputError(OPTION, file, "is not UTF-8 text; write it as the exporter-toolkit documents it") from error
    except yaml.YAMLError as error:
        # The error's own text quotes the line, which may hold a hash; it is not passed on, not even as a cause.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise InputError(OPTION, file, f"is not YAML{where}; fix it") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(OPTION, file, "is not a table of settings; it begins with a key such as tls_server_config:")
    return content


class _Table:
    """One table of the file, and how its keys are read."""

    def __init__(self, file: Path, path: str, content: Mapping[Any, Any], keys: tuple[str, ...] | None) -> None:
        self.file, self.path, self.content = file, path, content
        for key in content:
            if not isinstance(key, str) or (keys is not None and key not in keys):
                raise self.wrong(str(key), f"is not known here; the keys are {', '.join(keys or ('names',))}")

    def wrong(self, key: str, advice: str) -> InputError:
        """The error about ``key``, which names the key and not its value."""
        return InputError(OPTION, self.file, f"{self.path}{' '.join(key.split())[:80]} {advice}")

    def table(self, key: str, keys: tuple[str, ...] | None) -> _Table:
        value = self.content.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "is not a table; indent its keys below it")
        return _Table(self.file, f"{self.path}{key}.", value or {}, keys)

    def text(self, key: str) -> str | None:
        value = self.content.get(key)
        if value is not None and not (isinstance(value, str) and value):
            raise self.wrong(key, "is not text; write it in quotes")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.content.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self.wrong(key, "is not a list of strings; write one per line, after a dash")
        return value or []

    def boolean(self, key: str) -> bool:
        value = self.content.get(key, True)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false; write one of them")
        return value

    def file_path(self, key: str) -> Path | None:
        text = self.text(key)
        return None if text is None else self.file.parent / text

    def choice(self, key: str, choices: Mapping[str, Any], default: str) -> Any:
        text = self.text(key) or default
        if text not in choices:
            raise self.wrong(key, f"= {text!r} cannot be kept here; use one of {', '.join(choices)}")
        return choices[text]


def _context(table: _Table) -> tuple[ssl.SSLContext, tuple[Path, ...]]:
    certificate, key, client_ca = (table.file_path(name) for name in ("cert_file", "key_file", "client_ca_file"))
    if certificate is None or key is None:
        raise table.wrong("cert_file", "and key_file are both needed; name the PEM files of certificate and key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = table.choice("min_version", _VERSIONS, "TLS12")
    context.maximum_version = table.choice("max_version", _VERSIONS, "TLS13")
    if context.maximum_version < context.minimum_version:
        raise table.wrong("max_version", "is below min_version; no client could connect")
    if not table.boolean("prefer_server_cipher_suites"):
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _set_ciphers(context, table)
    _set_curve(context, table)
    _load(table, "cert_file", certificate, lambda: context.load_cert_chain(certificate, key, password=_no_password))
    context.verify_mode = table.choice("client_auth_type", _CLIENT_AUTH, "NoClientCert")
    if (client_ca is None) != (context.verify_mode == ssl.CERT_NONE):
        raise table.wrong("client_ca_file", "and a client_auth_type that verifies go together; give both or neither")
    if client_ca is not None:
        _load(table, "client_ca_file", client_ca, lambda: context.load_verify_locations(client_ca))
    elif table.texts("client_allowed_sans"):
        raise table.wrong(
            "client_allowed_sans", "needs client_ca_file: names in an unverified certificate mean nothing"
        )
    return context, tuple(path for path in (certificate, key, client_ca) if path is not None)


def _load(table: _Table, key: str, path: Path, load: Any) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise table.wrong(key, f"({path}) and its key are not a matching PEM pair; check both files") from error
    except OSError as error:
        raise table.wrong(
            key, f"({path}) or its key cannot be read ({error.strerror}); check path and owner"
        ) from error


def _no_password() -> str:
    # Without this, OpenSSL would ask for the passphrase on a terminal that nobody watches.
    raise ssl.SSLError("the key is encrypted")


def _set_ciphers(context: ssl.SSLContext, table: _Table) -> None:
    suites = table.texts("cipher_suites")
    if not suites:
        return
    # Those of TLS 1.3 are not for choosing, neither in Go nor here.
    names = [_openssl_name(suite) for suite in suites if "_WITH_" in suite]
    try:
        context.set_ciphers(":".join(names))
    except ssl.SSLError as error:
        raise table.wrong("cipher_suites", "has none that OpenSSL offers; leave it out for OpenSSL's own") from error
    offered = {cipher["name"] for cipher in context.get_ciphers()}
    for suite, name in zip([suite for suite in suites if "_WITH_" in suite], names, strict=True):
        if name not in offered:
            raise table.wrong("cipher_suites", f"has {suite}, which OpenSSL does not offer; leave it out")


def _openssl_name(suite: str) -> str:
    """``TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`` → ``ECDHE-RSA-AES128-GCM-SHA256``."""
    name = re.sub(r"AES_(\d+)_", r"AES\1_", suite.removeprefix("TLS_").replace("_WITH", ""))
    name = name.removeprefix("RSA_").replace("_CBC", "").replace("POLY1305_SHA256", "POLY1305")
    return name.replace("_", "-")


def _set_curve(context: ssl.SSLContext, table: _Table) -> None:
    match table.texts("curve_preferences"):
        case []:
            return
        case [curve] if curve in _CURVES:
            context.set_ecdh_curve(_CURVES[curve])
        case _:
            raise table.wrong(
                "curve_preferences", f"can be one of {', '.join(_CURVES)} here, not several; or leave it out"
            )


def _hash(users: _Table, name: str) -> bytes:
    value = users.content[name]
    if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
        raise users.wrong(name, "is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'")
    if not name or ":" in name:
        raise users.wrong(name, "is not a user name; it must not be empty or hold a colon")
    return value.encode("ascii")


def _header(headers: _Table, name: str) -> str:
    value = headers.text(name) or ""
    if not (value.isascii() and value.isprintable()):
        raise headers.wrong(name, "is not a header value; write printable ASCII on one line")
    return value
