"""The dashboard's PromQL, each query once.

Watts are the rate of a counter of joules, so what a panel shows as power adds up to what the counters counted. Ratios
(joules per token, shares) are of rates over ``$window``, which the reader chooses: a request's joules are booked while
it runs and its tokens when it ends, so the window should be several requests long.
"""

from __future__ import annotations

HOSTS = 'job=~"$job",instance=~"$instance"'
MODELS = f'{HOSTS},model_name=~"$model_name"'
WINDOW = "$window"
STEP = "$__rate_interval"


def rate(metric: str, labels: str = HOSTS, over: str = WINDOW) -> str:
    """Increase a second of a counter."""
    return f"rate({metric}{{{labels}}}[{over}])"


def total(metric: str, labels: str = HOSTS, by: str = "", over: str = WINDOW) -> str:
    """The same, summed, for each value of the labels ``by``."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, labels, over)})"


def gpu_w(by: str = "", over: str = WINDOW) -> str:
    """Power of the cards."""
    return total("llmpower_gpu_energy_joules_total", by=by, over=over)


def idle_w(by: str = "", over: str = WINDOW) -> str:
    """Power of the cards while no request ran."""
    return total("llmpower_idle_energy_joules_total", by=by, over=over)


def unattributed_w(by: str = "", over: str = WINDOW) -> str:
    """Power of the cards that belongs to no request and is not idle."""
    return total("llmpower_unattributed_energy_joules_total", by=by, over=over)


def inference_w(labels: str = MODELS, by: str = "", over: str = WINDOW) -> str:
    """Power that went to requests, of cards and CPUs."""
    return total("llmpower_inference_energy_joules_total", labels, by, over)


def requests_hz(by: str = "", labels: str = MODELS) -> str:
    """Requests that ended, a second."""
    return total("llmpower_inference_requests_total", labels, by)


def tokens_hz(direction: str, by: str = "", labels: str = MODELS) -> str:
    """Tokens a second; ``direction`` is input or output."""
    return total("llmpower_inference_tokens_total", f'{labels},direction="{direction}"', by)


def joules_per_output_token(by: str = "", labels: str = MODELS) -> str:
    """All joules of the requests over the tokens that they wrote."""
    return f"{inference_w(labels, by)} / {tokens_hz('output', by, labels)}"


def joules_per_request(by: str = "", labels: str = MODELS) -> str:
    """Mean over the requests whose joules are known."""
    name = "llmpower_inference_request_energy_joules"
    return f"{total(f'{name}_sum', labels, by)} / {total(f'{name}_count', labels, by)}"


def prefill_joules_per_token(by: str = "model_name") -> str:
    """What reading one input token costs on the cards."""
    return f"{inference_w(_phase('prefill'), by)} / {tokens_hz('input', by)}"


def decode_joules_per_token(by: str = "model_name") -> str:
    """What writing one output token costs on the cards."""
    return f"{inference_w(_phase('decode'), by)} / {tokens_hz('output', by)}"


def quantile(q: float, histogram: str, labels: str, by: str, over: str = WINDOW) -> str:
    """A quantile of a histogram, as good as its buckets."""
    return f"histogram_quantile({q}, {total(f'{histogram}_bucket', labels, f'le, {by}', over)})"


def all_w(by: str = "") -> str:
    """Cards and CPU packages, whichever are measured: what electricity is paid for here."""
    cpu = total("llmpower_cpu_energy_joules_total", by=by)
    gpu = gpu_w(by)
    return f"(({gpu}) + ({cpu}) or ({gpu}) or ({cpu}))"


def cost_per_hour(by: str = "") -> str:
    """In the currency of ``$price``."""
    return f"{all_w(by)} / 1000 * $pue * $price"


def co2_g_per_hour(by: str = "") -> str:
    """Grams, by the factor ``$carbon`` of the grid."""
    return f"{all_w(by)} / 1000 * $pue * $carbon"


def cost_per_million_tokens(by: str = "model_name") -> str:
    """Electricity for a million output tokens; 3.6 MJ are a kilowatt-hour."""
    return f"{joules_per_output_token(by)} * 1e6 / 3.6e6 * $pue * $price"


def co2_g_per_million_tokens(by: str = "model_name") -> str:
    """Grams for a million output tokens."""
    return f"{joules_per_output_token(by)} * 1e6 / 3.6e6 * $pue * $carbon"


def share(part: str, whole: str) -> str:
    """``part`` of ``whole``, 0 to 1."""
    return f"{part} / {whole}"


def _phase(phase: str) -> str:
    return f'{MODELS},phase="{phase}",device_kind="gpu"'
