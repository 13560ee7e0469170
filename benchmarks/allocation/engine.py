"""A serving engine with continuous batching, simulated: who was in which step, and what each step drew.

Requests arrive as a Poisson process at nine tenths of what the engine can take, with log-normal lengths, and wait until
fewer than ``concurrency`` run; a request's span begins when it is admitted, as a server reports it. Every step runs
prompts (whole, ahead of decoding, or a chunk beside it, as the law's engine does) and decodes a token or more for each
sequence. What is kept is the power of each step and every request's true joules.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from allocation.laws import Floats, Law, Members, energy_and_time, members, true_costs

LOAD = 0.9
NOISE_S = 0.05
IDLE_S = 4.0
"""Before the first request and behind the last."""


@dataclass(frozen=True)
class Workload:
    """Lengths: medians and the deviation of their logarithms, of a mixture's parts in turn."""

    name: str
    parts: tuple[tuple[float, float, float, float], ...]

    def lengths(self, count: int, chance: np.random.Generator) -> tuple[Floats, Floats]:
        """Input and output tokens of this many requests."""
        part = np.array(self.parts)[chance.integers(len(self.parts), size=count)]
        inputs = np.exp(chance.normal(np.log(part[:, 0]), part[:, 1]))
        outputs = np.exp(chance.normal(np.log(part[:, 2]), part[:, 3]))
        return np.clip(np.rint(inputs), 4, 8000), np.clip(np.rint(outputs), 2, 1500)


WORKLOADS = (
    Workload("chat", ((350.0, 1.0, 160.0, 0.8),)),
    Workload("mixed", ((2000.0, 0.6, 60.0, 0.6), (60.0, 0.8, 300.0, 0.6), (500.0, 1.0, 150.0, 0.9))),
)


@dataclass
class Request:
    """One request: what it asks for, how far it is, what it has cost."""

    inputs: float
    outputs: float
    factor: float
    cached: float
    arrival_s: float
    start_s: float = 0.0
    token_s: float = 0.0
    end_s: float = 0.0
    prompt: float = 0.0
    decoded: float = 0.0
    true_j: float = 0.0


@dataclass
class Played:
    """What was played: of every step its beginning, duration, energy and running requests; the requests; and, where it
    was asked for, who was in each step, as what, and by how much the energy deviated from the law.
    """

    start_s: list[float]
    time_s: list[float]
    energy_j: list[float]
    requests: list[Request]
    batch: list[int]
    steps: list[tuple[list[int], Members, float]]


def play(law: Law, workload: Workload, concurrency: int, seconds: float, seed: int, *, keep: bool = False) -> Played:
    """Serve for so long.

    Args:
        law: of cost.
        workload: of the requests.
        concurrency: most requests that run at a time.
        seconds: of arrivals.
        seed: of all that is drawn.
        keep: every step's members, for the reference.
    """
    pilot = _serve(law, _draw(law, workload, 5 * concurrency + 20, 1e9, seed), concurrency, seed, costs=False)
    rate = LOAD * len(pilot.requests) / sum(pilot.time_s)
    requests = _draw(law, workload, max(int(rate * seconds), 3), rate, seed + 1)
    return _serve(law, requests, concurrency, seed + 2, costs=True, keep=keep)


def _draw(law: Law, workload: Workload, count: int, rate: float, seed: int) -> list[Request]:
    chance = np.random.default_rng(seed)
    inputs, outputs = workload.lengths(count, chance)
    arrivals_s = IDLE_S + np.cumsum(chance.exponential(1 / rate, count))
    factors = np.exp(chance.normal(0, law.spread, count))
    cached = np.where(chance.random(count) < law.cached, chance.uniform(0.5, 0.95, count), 0.0)
    columns = zip(inputs, outputs, factors, cached, arrivals_s, strict=True)
    return [Request(*(float(each) for each in row)) for row in columns]


def _serve(
    law: Law, requests: list[Request], concurrency: int, seed: int, *, costs: bool, keep: bool = False
) -> Played:
    chance = np.random.default_rng(seed)
    played = Played([], [], [], requests, [], [])
    numbers = {id(request): number for number, request in enumerate(requests)}
    waiting, running = deque(requests), list[Request]()
    now_s, noise, turn = 0.0, 1.0, 0
    while waiting or running:
        if not running and waiting[0].arrival_s > now_s:
            now_s = waiting[0].arrival_s
        while waiting and len(running) < concurrency and waiting[0].arrival_s <= now_s:
            request = waiting.popleft()
            request.start_s = now_s
            request.prompt = float(int(request.cached * request.inputs))
            running.append(request)
        turn += 1
        inside, prompts, decoded = _choose(law, running, turn, chance)
        step = members(
            law,
            prompts,
            np.array([each.prompt for each in inside]),
            decoded,
            np.array([each.inputs + each.decoded if d else 0.0 for each, d in zip(inside, decoded, strict=True)]),
            np.array([each.factor for each in inside]),
        )
        energies_j, times_s = energy_and_time(law, step)
        time_s = float(times_s[0])
        kept = float(np.exp(-time_s / NOISE_S))
        noise = 1 + kept * (noise - 1) + law.noise * float(chance.normal()) * (1 - kept**2) ** 0.5
        costs_j = noise * true_costs(law, step, chance) if costs else np.zeros(len(inside))
        played.start_s.append(now_s)
        played.time_s.append(time_s)
        played.energy_j.append(noise * float(energies_j[0]))
        played.batch.append(len(running))
        if keep:
            played.steps.append(([numbers[id(each)] for each in inside], step, noise))
        now_s += time_s
        for request, prompt, tokens, cost_j in zip(inside, prompts, decoded, costs_j, strict=True):
            request.true_j += float(cost_j)
            request.decoded = min(request.decoded + float(tokens), request.outputs)
            if prompt:
                request.prompt += float(prompt)
                if request.prompt >= request.inputs:
                    request.decoded, request.token_s = 1.0, now_s
            if request.prompt >= request.inputs and request.decoded >= request.outputs:
                request.end_s = now_s
                running.remove(request)
    return played


def _choose(
    law: Law, running: list[Request], turn: int, chance: np.random.Generator
) -> tuple[list[Request], Floats, Floats]:
    """Who is in the next step, with how many tokens of prompts and how many decoded ones."""
    if not law.batched:
        request = running[turn % len(running)]
        left = request.inputs - request.prompt
        return [request], np.array([left]), np.array([0.0 if left else 1.0])
    prompting = [each for each in running if each.prompt < each.inputs]
    decoding = [each for each in running if each.prompt >= each.inputs]
    if law.chunk is None:
        if prompting:
            return prompting[:1], np.array([prompting[0].inputs - prompting[0].prompt]), np.zeros(1)
        budget = 0.0
    else:
        budget = float(law.chunk)
    inside, prompts = list(decoding), [0.0] * len(decoding)
    decoded = [1.0 + min(chance.geometric(1 - law.drafted) - 1, 3) for _ in decoding]
    for request in prompting:
        if budget <= 0:
            break
        taken = min(budget, request.inputs - request.prompt)
        budget -= taken
        inside.append(request)
        prompts.append(taken)
        decoded.append(0.0)
    return inside, np.array(prompts), np.array(decoded)
