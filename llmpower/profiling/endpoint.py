"""A server that speaks OpenAI's API: how to make it read and write an exact number of tokens, and what it says it did.

The API counts tokens in ``usage`` and takes text. A prompt here is a row of single letters, drawn at random: a letter
after a space is one token to nearly every tokenizer, and prompts that share no beginning are served by no prefix cache.
How many letters make τin tokens, beginning-of-sequence and chat template included, is found by asking; what a trial
counts is ``usage`` alone.

That an answer shall have exactly τout tokens, and not end before, is beyond the API; servers have parameters of their
own for it. These :data:`DIALECTS` are tried on the first request, and the first one that the server accepts and
respects is kept. A stream that says its usage comes first, for it also shows the first token.
"""

from __future__ import annotations

import json
import random
import string
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any

from llmpower.exceptions import InputError, LlmpowerError
from llmpower.serving import is_loopback

OPTION = "--endpoint"
TIMEOUT_S = 600.0

REFUSED = (400, 404, 405, 422, 501)
"""Statuses by which a server says that it does not understand, and another dialect may do."""

TRIES = 6


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server says that one answer took."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server is asked: at which path, with which words for the length, and whether as a stream."""

    name: str
    path: str
    length: Callable[[int], Mapping[str, object]]
    is_stream: bool

    def body(self, model: str, prompt: str, output_tokens: int) -> dict[str, object]:
        """The request's JSON."""
        said = {"messages": [{"role": "user", "content": prompt}]} if "chat" in self.path else {"prompt": prompt}
        stream = {"stream": True, "stream_options": {"include_usage": True}} if self.is_stream else {}
        return {
            "model": model,
            **said,
            "temperature": 0,
            "max_tokens": output_tokens,
            **self.length(output_tokens),
            **stream,
        }


def _of_vllm(output_tokens: int) -> Mapping[str, object]:
    return {"min_tokens": output_tokens, "ignore_eos": True}


def _of_transformers(output_tokens: int) -> Mapping[str, object]:
    settings = {"min_new_tokens": output_tokens, "max_new_tokens": output_tokens, "do_sample": False}
    return {"generation_config": json.dumps(settings)}


DIALECTS = tuple(
    Dialect(f"{name}, {path}", path, length, is_stream)
    for path in ("completions", "chat/completions")
    for name, length in (("vLLM", _of_vllm), ("transformers", _of_transformers), ("OpenAI", lambda _: {}))
    for is_stream in (True, False)
)
"""vLLM's words are SGLang's and llama.cpp's too, in part; completions have no chat template in the way."""


class EndpointRefusedError(LlmpowerError):
    """The server answered, and did not do what was asked."""


@dataclass
class Endpoint:
    """A server and one model of it.

    Args:
        url: where it is, with or without ``/v1``.
        model: as the server calls it; ``None`` is the only one that it has.
        api_key: for servers that ask for one.
        seed: of the prompts.

    Raises:
        InputError: nobody answers there, the model is not there, or no dialect is understood.
    """

    url: str
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        self._opener = _opener(self.url)
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            advice = "has a character that no header can hold; give the key alone, in one line"
            raise InputError("--api-key", "***", advice)
        self._base = self.url.rstrip("/")
        if not self._base.endswith("/v1"):
            self._base += "/v1"
        self._random = random.Random(self.seed)
        self._letters: dict[int, int] = {}
        self.model = self.model or self._only_model()
        self.dialect, self.is_exact = self._agree()

    def complete(self, letters: int, output_tokens: int, on_first_token: Callable[[], object] = lambda: None) -> Usage:
        """Have a prompt of this many letters answered with this many tokens; may be called by several threads.

        Raises:
            EndpointRefusedError: the server says no, or breaks off.
        """
        return self._ask(self.dialect, self._prompt(letters), output_tokens, on_first_token)

    def letters_for(self, input_tokens: int) -> int:
        """How many letters make ``input_tokens``, or as near as can be: found by asking, and kept."""
        if input_tokens not in self._letters:
            letters, best = max(input_tokens, 1), (input_tokens, 1)
            for _ in range(TRIES):
                off = self.complete(letters, 1).input_tokens - input_tokens
                best = min(best, (abs(off), letters))
                if off == 0 or letters - off < 1:
                    break
                letters -= off
            self._letters[input_tokens] = best[1]
        return self._letters[input_tokens]

    def _prompt(self, letters: int) -> str:
        return " ".join(self._random.choices(string.ascii_lowercase, k=letters))

    def _only_model(self) -> str:
        try:
            with self._open("models", None) as response:
                listed = [str(each["id"]) for each in json.load(response)["data"]]
        except (EndpointRefusedError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "MODEL", "none", f"the server does not list its models ({error}); name the model"
            ) from error
        if len(listed) != 1:
            raise InputError("MODEL", "none", f"the server has {', '.join(listed[:10]) or 'no model'}; name one")
        return listed[0]

    def _agree(self) -> tuple[Dialect, bool]:
        """A dialect that the server takes, and whether its answers have the length asked for."""
        taken: Dialect | None = None
        refusal = ""
        for dialect in DIALECTS:
            try:
                usage = self._ask(dialect, self._prompt(8), 4)
            except EndpointRefusedError as error:
                refusal = refusal or str(error)
                continue
            if usage.output_tokens == 4:
                return dialect, True
            taken = taken or dialect
        if taken is None:
            advice = (
                f"answers no completion of {self.model} with its usage ({refusal}); check MODEL and the server's log"
            )
            raise InputError(OPTION, self.url, advice)
        return taken, False

    def _ask(
        self, dialect: Dialect, prompt: str, output_tokens: int, on_first_token: Callable[[], object] = lambda: None
    ) -> Usage:
        body = dialect.body(str(self.model), prompt, output_tokens)
        usage: object = None
        with self._open(dialect.path, body) as response:
            try:
                for document in _events(response) if dialect.is_stream else [json.load(response)]:
                    if dialect.is_stream and any(map(_has_token, document.get("choices") or ())):
                        on_first_token()
                    usage = document.get("usage") or usage
            except (OSError, HTTPException, ValueError, TypeError, AttributeError, RecursionError) as error:
                raise EndpointRefusedError(f"{dialect.path} broke off: {error}") from error
        try:
            return Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))  # type: ignore[index]
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise EndpointRefusedError(f"{dialect.path} does not say its usage") from error

    def _open(self, path: str, body: Mapping[str, object] | None) -> HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}/{path}", data=data, headers=headers)
        try:
            response: HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(300).decode(errors="replace").strip()
            if error.code in REFUSED:
                raise EndpointRefusedError(f"{path}: {error.code} {said}") from error
            advice = f"answers {error.code} {error.reason} to {path}; look at the server's log"
            if error.code in (401, 403):
                advice = f"asks for a key ({error.code}); give it in LLMPOWER_PROFILE_API_KEY"
            raise InputError(OPTION, self.url, advice) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise InputError(OPTION, self.url, f"nobody answers there ({reason}); start the server first") from error
        return response


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What asks ``url``: as the environment says, but through no proxy where it is on this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host or not url.isprintable():
            raise ValueError
    except ValueError:
        raise InputError(OPTION, url, "is not an address of a server; write http://HOST:PORT") from None
    handlers = [urllib.request.ProxyHandler({})] if _is_here(host) else []
    return urllib.request.build_opener(*handlers)


def _is_here(host: str) -> bool:
    try:
        return is_loopback(host)
    except ValueError:
        return host == "localhost"


def _has_token(choice: Mapping[str, Any]) -> bool:
    """Whether there is one in this part of a stream; a chat's begins with the role alone, before the prompt is read."""
    delta = choice.get("delta")
    return delta is None or any(said for name, said in delta.items() if name != "role")


def _events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON documents of a stream of server-sent events."""
    for line in response:
        data = line.strip().removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            document = json.loads(data)
            if "error" in document:
                raise ValueError(f"the server says {document['error']}")
            yield document
