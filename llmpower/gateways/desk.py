"""What stands between a gateway and the router: requests in characters, work in the background, a state file.

A gateway has a prompt, not its tokens, and a tokenizer for every model would be expensive for what is needed.
Characters are counted, and how many of them make a token is learnt from the usage that servers report.

Choosing and observing take microseconds and are done at once. Solving for prices and saving the state are done by
threads of the desk's own.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Timer

from llmpower.exceptions import InputError, LlmpowerError
from llmpower.routing.online.router import PERIOD, OnlineRouter
from llmpower.routing.policies.document import load_policy
from llmpower.routing.problem.workload import TOKENS_END

POLICY, STATE, ALIAS, QUOTA_PERIOD = (f"LLMPOWER_GATEWAY_{name}" for name in ("POLICY", "STATE", "MODEL", "PERIOD"))

DEFAULT_ALIAS = "llmpower"
"""What clients ask for to be routed."""

SAVE_EVERY_S = 10.0
"""Many servers end by the signal that they get, with nothing run at exit: what is newer than this may be lost."""

CHARACTERS_PER_TOKEN = 4.0
"""Until servers have said better; each of their answers counts for a hundredth then."""
MEMORY = 0.01

log = logging.getLogger("llmpower.gateway")


class Desk:
    """Takes requests as a gateway knows them.

    ``alias`` is the model that clients ask for to be routed; ``state`` is the file where what was learnt is kept,
    and taken up from if it exists. It is saved ``save_every_s`` after the first answer that it lacks.

    Raises:
        InputError: the state cannot be read.
    """

    def __init__(
        self,
        router: OnlineRouter,
        alias: str = DEFAULT_ALIAS,
        state: Path | None = None,
        save_every_s: float = SAVE_EVERY_S,
    ) -> None:
        self.router, self.alias = router, alias
        self._state, self._save_every_s = state, save_every_s
        self._characters_per_token = CHARACTERS_PER_TOKEN
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llmpower-gateway")
        self._at_work: Future[None] | None = None
        self._saving: Timer | None = None
        if state is not None:
            if state.exists():
                router.restore(state)
            atexit.register(self.close)

    def choose(self, characters: int, label: str | None = None, at_most: float | None = None) -> str:
        """The name of the model for a request of this many characters; see :meth:`OnlineRouter.choose`.

        A client's limit that allows no answer, or any, is none: -1 asks some servers for an answer of any length.
        """
        at_most = at_most if at_most is not None and 0 < at_most < TOKENS_END else None
        tokens = max(1, round(characters / self._characters_per_token))
        return self.router.choose(tokens, query_class=label, at_most=at_most).name

    def complete(self, characters: int, input_tokens: int, output_tokens: int, label: str | None = None) -> None:
        """Learn from the usage that a server reports of a request."""
        if characters > 0 and input_tokens > 0:
            self._characters_per_token += MEMORY * (characters / input_tokens - self._characters_per_token)
        self.router.observe(input_tokens, output_tokens, query_class=label)
        if self.router.learning_due and (self._at_work is None or self._at_work.done()):
            self._at_work = self._thread.submit(self._learn)
        if self._state is not None and (self._saving is None or not self._saving.is_alive()):
            self._saving = Timer(self._save_every_s, self._save)
            self._saving.daemon = True
            self._saving.start()

    def close(self) -> None:
        """Save the state, once no thread is at it."""
        self._thread.shutdown()
        if self._saving is not None:
            self._saving.cancel()
        self._save()

    def _learn(self) -> None:
        try:
            self.router.learn()
        except LlmpowerError as error:
            log.warning("prices stay as they are: %s", error)

    def _save(self) -> None:
        if self._state is None:
            return
        try:
            self.router.save(self._state)
        except InputError as error:
            log.warning("what was learnt is not kept: %s", error)


def from_environment(environment: Mapping[str, str] = os.environ) -> Desk:
    """As ``LLMPOWER_GATEWAY_POLICY``, ``_STATE``, ``_MODEL`` and ``_PERIOD`` say.

    Raises:
        InputError: no policy is named, or one of the files or figures cannot be used.
        InfeasibleError: no whole numbers of that many queries meet the policy's shares.
    """
    if not (path := environment.get(POLICY)):
        raise InputError(POLICY, "not set", "name the file that llmpower route --policy wrote")
    period = environment.get(QUOTA_PERIOD, str(PERIOD))
    if not period.isdecimal():
        raise InputError(QUOTA_PERIOD, period, "is the number of queries over which shares are kept; write 10000")
    state = environment.get(STATE)
    return Desk(
        OnlineRouter(load_policy(path, POLICY), int(period)),
        environment.get(ALIAS, DEFAULT_ALIAS),
        Path(state) if state else None,
    )
