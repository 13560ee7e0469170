"""LiteLLM's proxy routed by a policy: in its config, ``callbacks: ["llmpower.gateways.litellm.routing"]``.

The proxy asks every callback before it calls a model, and lets it change the request; a request for the model
``llmpower`` leaves here for one of the policy's. When the answer is complete, streamed or not, the proxy reports its
usage, which the router learns from. Everything else (keys, retries, fallbacks, budgets) stays LiteLLM's.

A fault here must not cost a request that another could have answered: what cannot be decided goes to the policy's first
model, and is logged.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from llmpower.gateways.desk import Desk, from_environment, log

MARK = "llmpower"
"""Under this key of a request's metadata is what has to be known again when it is complete."""


class Routing(CustomLogger):  # type: ignore[misc]  # LiteLLM is not there when types are checked
    """The callback: ``desk`` chooses and learns."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,  # noqa: ARG002 (LiteLLM's signature)
        data: dict[str, Any],
        call_type: str,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Put the chosen model in the place of the alias."""
        if data.get("model") != self.desk.alias:
            return data
        characters, label = count_characters(data), label_of(data, user_api_key_dict)
        limit = data.get("max_completion_tokens") or data.get("max_tokens")
        try:
            chosen = self.desk.choose(characters, label, limit if isinstance(limit, int | float) else None)
        except Exception as error:  # whatever it was, the request is to be answered
            chosen = self.desk.router.policy.models[0].name
            log.error("sent to %s, as it could not be routed: %s", chosen, error)
        data["model"] = chosen
        metadata = data.get("metadata")
        data["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), MARK: [characters, label]}
        return data

    async def async_log_success_event(
        self,
        kwargs: dict[str, Any],
        response_obj: Any,
        start_time: Any,  # noqa: ARG002
        end_time: Any,  # noqa: ARG002
    ) -> None:
        """Learn from an answer to a request that was routed here."""
        mark = ((kwargs.get("litellm_params") or {}).get("metadata") or {}).get(MARK)
        usage = getattr(response_obj, "usage", None)
        if mark is None or usage is None:
            return
        characters, label = mark
        self.desk.complete(characters, int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0), label)


def count_characters(data: dict[str, Any]) -> int:
    """Of all text of a chat's messages, a completion's prompt, or an input; what is not text counts nothing."""
    return _characters([data.get("messages"), data.get("prompt"), data.get("input"), data.get("instructions")])


def label_of(data: dict[str, Any], user_api_key_dict: Any) -> str | None:
    """Whose request it is: the first of its tags, else the key's alias."""
    metadata = data.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    if isinstance(tags, list) and tags and isinstance(tags[0], str):
        return tags[0]
    alias = getattr(user_api_key_dict, "key_alias", None)
    return alias if isinstance(alias, str) else None


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_characters, value))
    if isinstance(value, dict):
        return _characters(value.get("content")) + _characters(value.get("text"))
    return 0


@cache
def _routing() -> Routing:
    return Routing(from_environment())


def __getattr__(name: str) -> Routing:
    """``routing``, made when LiteLLM asks for it, as the environment says."""
    if name == "routing":
        return _routing()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
