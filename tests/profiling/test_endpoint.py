from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.profiling import Endpoint
from llmpower.profiling.endpoint import EndpointRefusedError, Usage

Serve = Callable[..., Any]


@pytest.mark.parametrize(
    ("server", "dialect", "is_exact"),
    [
        ({}, "vLLM, completions", True),
        ({"knows": "transformers", "strict": True}, "transformers, completions", True),
        ({"knows": "transformers"}, "transformers, completions", True),
        ({"paths": ("chat/completions",)}, "vLLM, chat/completions", True),
        ({"knows": "neither"}, "vLLM, completions", False),
        ({"knows": "neither", "strict": True}, "OpenAI, completions", False),
    ],
    ids=["vllm", "transformers", "lenient transformers", "chat only", "ends early", "strict and ends early"],
)
def test_the_first_dialect_that_is_understood_and_obeyed_is_spoken(
    serve: Serve, server: dict[str, Any], dialect: str, is_exact: bool
) -> None:
    endpoint = Endpoint(serve(**server).url)
    assert (endpoint.dialect.name, endpoint.is_exact, endpoint.model) == (dialect, is_exact, "tiny")
    assert endpoint.dialect.is_stream
    assert endpoint.complete(10, 7) == Usage(11, 7 if is_exact else 2)


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_stream_shows_the_first_token_and_is_given_up_where_it_does_not_say_its_usage(
    serve: Serve, path: str
) -> None:
    seen: list[int] = []
    Endpoint(serve(paths=(path,)).url).complete(4, 3, lambda: seen.append(1))
    assert len(seen) == 3
    endpoint = Endpoint(serve(streams=False).url)
    assert not endpoint.dialect.is_stream
    assert endpoint.complete(4, 3, lambda: seen.append(1)) == Usage(5, 3)
    assert len(seen) == 3


@pytest.mark.parametrize("template", [0, 1, 25])
def test_prompts_have_the_tokens_asked_for_whatever_the_server_adds(serve: Serve, template: int) -> None:
    endpoint = Endpoint(serve(template=template).url)
    letters = endpoint.letters_for(64)
    assert endpoint.complete(letters, 1).input_tokens == 64
    assert endpoint.letters_for(64) == letters


def test_a_prompt_shorter_than_the_template_is_as_short_as_can_be(serve: Serve) -> None:
    endpoint = Endpoint(serve(template=25).url)
    assert endpoint.complete(endpoint.letters_for(8), 1).input_tokens >= 26


def test_no_two_prompts_begin_alike_and_a_seed_repeats_them(serve: Serve) -> None:
    prompts = []
    for _ in range(2):
        server = serve()
        endpoint = Endpoint(server.url, seed=3)
        for _ in range(3):
            endpoint.complete(32, 1)
        prompts.append([body["prompt"] for body in server.bodies])
    assert prompts[0] == prompts[1]
    assert len({prompt[:16] for prompt in prompts[0]}) == len(prompts[0])


def test_the_address_may_have_its_v1_and_the_key_is_sent_and_not_shown(serve: Serve) -> None:
    server = serve(key="secret")
    endpoint = Endpoint(f"{server.url}/v1/", "tiny", "secret")
    assert endpoint.complete(4, 2) == Usage(5, 2)
    assert "secret" not in repr(endpoint)
    with pytest.raises(InputError, match="LLMPOWER_PROFILE_API_KEY"):
        Endpoint(server.url, "tiny", "wrong")


def test_which_model_is_asked_where_there_are_several(serve: Serve) -> None:
    with pytest.raises(InputError, match="one, two; name one"):
        Endpoint(serve(models=("one", "two")).url)


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8000", "ftp://host", "", "http://", "http://[::1", "http://a:b", "http://a:99999", "http://a\n"),
        "http://127.0.0.1:9",
    ],
)
def test_an_address_where_nobody_answers_is_named(url: str) -> None:
    with pytest.raises(InputError, match="--endpoint"):
        Endpoint(url, "tiny")


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match=r"--api-key = \*\*\*: has a character that no header can hold"):
        Endpoint("http://127.0.0.1:9", "tiny", "secret\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_through_no_proxy(
    serve: Serve, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Endpoint(serve().url.replace("127.0.0.1", host)).complete(4, 3) == Usage(5, 3)
    with pytest.raises(InputError, match="nobody answers there"):
        Endpoint("http://elsewhere.example", "tiny")


def test_a_server_without_completions_is_refused_with_what_it_said(serve: Serve) -> None:
    with pytest.raises(InputError, match="404"):
        Endpoint(serve(paths=()).url)


class Raw(http.server.BaseHTTPRequestHandler):
    """Answers everything with the same bytes."""

    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def raw() -> Any:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Raw)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b'data: {"usage": {"prompt_tokens": "x"}}\n\n',
            b'data: {"error": "full"}\n\n',
            b"data: [1]\n\n",
            b'{"usage": 3}',
            b'{"usage": {"prompt_tokens": 1}}',
            b"[]",
            b"data: {",
            b'{"usage": {"prompt_tokens": 1e999, "completion_tokens": 1}}',
        ]
    )
)
def test_whatever_a_server_answers_is_a_usage_or_one_line(raw: Any, answer: bytes) -> None:
    Raw.answer = answer
    with pytest.raises(InputError, match="--endpoint"):
        Endpoint(f"http://127.0.0.1:{raw.server_address[1]}", "tiny")


def test_an_answer_that_breaks_off_is_said(serve: Serve, raw: Any) -> None:
    endpoint = Endpoint(serve().url)
    endpoint._base = f"http://127.0.0.1:{raw.server_address[1]}"
    Raw.answer = b'data: {"error": "out of blocks"}\n\n'
    with pytest.raises(EndpointRefusedError, match="out of blocks"):
        endpoint.complete(4, 4)
