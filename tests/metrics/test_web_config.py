from __future__ import annotations

import ssl
from pathlib import Path

import bcrypt
import pytest
from certificates import Authority
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.metrics.web_config import WebConfig, load_web_config

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


def load(directory: Path, text: str) -> WebConfig:
    file = directory / "web.yml"
    file.write_text(text, encoding="utf-8")
    return load_web_config(file)


def refused(directory: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(directory, text)
    assert caught.value.field == "--web.config.file"
    assert caught.value.value == directory / "web.yml"
    assert "\n" not in str(caught.value)
    return caught.value.advice


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    config = load(tmp_path, "# nothing yet\n")
    assert (config.tls, config.users, config.headers) == (None, {}, {})


def test_the_schema_of_the_exporter_toolkit_is_read_whole(authority: Authority) -> None:
    authority.issue("server", "localhost")
    assert authority.file.is_file()
    config = load(
        authority.directory,
        f"""
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.example]
  min_version: TLS12
  max_version: TLS12
  prefer_server_cipher_suites: true
  cipher_suites:
  - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
  - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
  - TLS_RSA_WITH_AES_128_CBC_SHA
  - TLS_AES_128_GCM_SHA256
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
basic_auth_users:
  prometheus: {HASH}
""",
    )
    assert config.tls is not None
    assert config.tls.verify_mode == ssl.CERT_REQUIRED
    assert (config.tls.minimum_version, config.tls.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    offered = [cipher["name"] for cipher in config.tls.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert offered == ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "AES128-SHA"]
    assert config.client_sans == {"prometheus.example"}
    assert config.users == {"prometheus": HASH.encode()}
    assert config.headers == {"X-Frame-Options": "deny"}
    assert {file.name for file in config.files} == {"web.yml", "server.pem", "server.key", "ca.pem"}


def test_without_a_word_on_versions_tls_1_2_is_the_oldest(authority: Authority) -> None:
    authority.issue("server", "localhost")
    tls = load(authority.directory, "tls_server_config: {cert_file: server.pem, key_file: server.key}").tls
    assert tls is not None
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(("said", "prefers"), [("", True), ("true", True), ("false", False)])
def test_whose_order_of_cipher_suites_counts(said: str, prefers: bool, authority: Authority) -> None:
    authority.issue("server", "localhost")
    text = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
    tls = load(authority.directory, text + (f"  prefer_server_cipher_suites: {said}\n" if said else "")).tls
    assert tls is not None
    assert bool(tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE) == prefers


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("- a\n- b", "is not a table of settings"),
        ("tls_server_config: [", "is not YAML (line 1)"),
        ("tls_sever_config: {}", "tls_sever_config is not known here; the keys are tls_server_config"),
        ("tls_server_config: yes", "tls_server_config is not a table"),
        ("tls_server_config: {cert: x}", "tls_server_config.cert is not known here"),
        ("tls_server_config: {cert_file: server.pem}", "tls_server_config.cert_file and key_file are both needed"),
        ("tls_server_config: {cert_file: 7, key_file: server.key}", "tls_server_config.cert_file is not text"),
        ("tls_server_config: {cert_file: none.pem, key_file: server.key}", "cannot be read (No such file"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "are not a matching PEM pair"),
        ("tls_server_config: {cert_file: server.pem, key_file: other.key}", "are not a matching PEM pair"),
        ("tls_server_config: {SERVER, min_version: SSL30}", "min_version = 'SSL30' cannot be kept here; use one of"),
        ("tls_server_config: {SERVER, min_version: TLS13, max_version: TLS12}", "max_version is below min_version"),
        ("tls_server_config: {SERVER, client_auth_type: RequireAnyClientCert}", "RequireAnyClientCert' cannot be kept"),
        ("tls_server_config: {SERVER, client_auth_type: RequireAndVerifyClientCert}", "client_ca_file and a client_"),
        ("tls_server_config: {SERVER, client_ca_file: server.pem}", "client_ca_file and a client_auth_type"),
        ("tls_server_config: {SERVER, client_allowed_sans: [a]}", "client_allowed_sans needs client_ca_file"),
        ("tls_server_config: {SERVER, client_allowed_sans: a}", "client_allowed_sans is not a list of strings"),
        ("tls_server_config: {SERVER, cipher_suites: [TLS_ECDHE_RSA_WITH_ROT13]}", "has none that OpenSSL offers"),
        (
            "tls_server_config: {SERVER, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_A_WITH_B]}",
            "cipher_suites has TLS_A_WITH_B",
        ),
        ("tls_server_config: {SERVER, curve_preferences: [X25519, CurveP256]}", "not several"),
        ("tls_server_config: {SERVER, prefer_server_cipher_suites: 1}", "is neither true nor false"),
        ("http_server_config: {http2: perhaps}", "http_server_config.http2 is neither true nor false"),
        ("http_server_config: {headers: {Server: x}}", "http_server_config.headers.Server is not known here"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb"}}', "is not a header value"),
        ('basic_auth_users: {"a:b": "HASH"}', "is not a user name"),
        ("basic_auth_users: {1: x}", "basic_auth_users.1 is not known here"),
    ],
)
def test_what_cannot_be_kept_is_refused(text: str, advice: str, authority: Authority) -> None:
    authority.issue("server", "localhost")
    authority.issue("other", "localhost")
    text = text.replace("SERVER", "cert_file: server.pem, key_file: server.key").replace("HASH", HASH)
    assert advice in refused(authority.directory, text)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_web_config(tmp_path / "none.yml")


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {prometheus: hunter2}",
        "basic_auth_users: {prometheus: [hunter2]}",
        "basic_auth_users:\n  prometheus: hunter2\n bad",
        "basic_auth_users:\n  prometheus: 'hunter2",
        "basic_auth_users: hunter2",
        f"basic_auth_users: {{prometheus: {HASH[:-1]}}}",
    ],
    ids=["plain", "list", "broken", "open", "no mapping", "cut hash"],
)
def test_what_stands_where_a_hash_belongs_is_never_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        assert HASH[:-1] not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(alphabet=":[]{}-&*!|>'\"%@`#\n \tabc0\\", max_size=80).map(str.encode))
def test_any_bytes_are_a_config_or_one_line_of_advice(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_bytes(content)
    try:
        assert load_web_config(file).tls is None
    except InputError as error:
        advice = error.advice
    else:
        return
    assert "\n" not in advice
