"""Score rules and masks, per visible pair: beside the plain call, FlexAttention and SDPA."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import own
from bench.peers import flex, pytorch
from bench.workload import Make, Workload, ahead, share_of
from clearhead import alibi, bias, causal, documents, problem, softcap, window
from clearhead.arrays import Array
from clearhead.cli.bench import SAMPLED_ROWS, Shape, operands
from clearhead.cli.race import Exact
from clearhead.definition import textbook
from clearhead.rules.masks import visible

LEAST = {"plain": 1.0, "softcap": 0.8, "ALiBi": 0.9, "sink": 0.95, "window": 0.77, "documents": 0.9, "function": 0.9}


def workloads(*, quick: bool) -> Iterator[Workload]:
    """Each rule at one shape."""
    shape: Shape = (1, 2, 128, 16) if quick else (1, 8, 2048, 64)
    q, k, v = operands(shape)
    heads, n, dim = shape[1:]
    part, near = n // 4, min(255, n // 4)
    slope = np.linspace(0.001, 0.01, heads).astype(np.float32)
    sinks = np.random.default_rng(1).standard_normal(heads).astype(np.float32)
    table = np.random.default_rng(2).standard_normal((n, n)).astype(np.float32)
    cases: dict[str, dict[str, Any]] = {
        "softcap": {"score": softcap(30.0)},
        "ALiBi": {"score": alibi(heads)},
        "sink": {"sink": sinks},
        "window": {"mask": window(near)},
        "documents": {"mask": documents([part] * 4) & causal()},
        "function": {"score": lambda s, b, h, q, k: s + slope[h] * (k - q)},
        "bias": {"score": bias(table)},
    }
    flexible = {} if quick else compiled(q, k, v, slope, sinks, part, near, table)
    distance = (np.arange(n) - np.arange(n)[:, None]).astype(np.float32)
    hidden = np.where(distance <= 0, 0, -np.inf).astype(np.float32)
    dense = {
        "ALiBi": (alibi(heads).slopes[:, None, None] * distance + hidden).astype(np.float32)[None],
        "window": visible(window(near), n, n),
        "documents": visible(documents([part] * 4) & causal(), n, n),
        "function": (slope[:, None, None] * distance + hidden)[None],
        "bias": table + hidden,
    }
    of_plain = 4 * dim * problem(q, k, v, mask=causal()).pairs
    for name, rules in cases.items():
        peers: dict[str, Make] = {}
        if name in flexible:
            peers["FlexAttention"] = flexible[name]
        if name in dense:
            peers["PyTorch SDPA"] = lambda name=name: pytorch.sdpa(q, k, v, seen=dense[name])
        yield Workload(
            f"{name}, {shape}",
            lambda rules=rules: exact(q, k, v, rules),
            {"clearhead": lambda rules=rules: own.forward(q, k, v, **rules)},
            peers,
            {"plain": lambda: own.forward(q, k, v)},
            operations=4 * dim * problem(q, k, v, mask=rules.get("mask", causal())).pairs,
            operations_of={"plain": of_plain},
            promises=(*((ahead(),) if peers else ()), *((share_of("plain", LEAST[name]),) if name in LEAST else ())),
        )


def exact(q: Array, k: Array, v: Array, rules: dict[str, Any]) -> Exact:
    """Rows that were drawn; of a sink, the last ones."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    n = q.shape[-2]
    if "sink" in rules:
        last = min(SAMPLED_ROWS, n)
        values = textbook.attention(q[..., n - last :, :], k, v, mask=causal(at=n - last), **rules)
        return Exact(values, lambda y: y[..., n - last :, :])
    rows = np.unique(np.random.default_rng(1).integers(0, n, SAMPLED_ROWS))
    mask, score = rules.get("mask", causal()), rules.get("score", ())
    return Exact(textbook.weights_of_rows(q, k, rows, mask, q.shape[-1] ** -0.5, score) @ v, lambda y: y[..., rows, :])


def compiled(
    q: Array, k: Array, v: Array, slope: Array, sinks: Array, part: int, near: int, table: Array
) -> dict[str, Make]:
    """Each rule as FlexAttention takes it."""
    torch = pytorch.torch_with()
    slopes, bent, added = (torch.from_numpy(np.float32(x)) for x in (alibi(q.shape[1]).slopes, slope, table))
    scores = {
        "softcap": lambda s, b, h, i, j: 30.0 * torch.tanh(s / 30.0),
        "ALiBi": lambda s, b, h, i, j: s + slopes[h] * (j - i),
        "function": lambda s, b, h, i, j: s + bent[h] * (j - i),
        "bias": lambda s, b, h, i, j: s + added[i, j],
    }
    masks = {
        "window": lambda b, h, i, j: (j <= i) & (i - j <= near),
        "documents": lambda b, h, i, j: (j <= i) & (i // part == j // part),
    }
    makes: dict[str, Make] = {
        name: (lambda score=score: flex.attention(q, k, v, score=score)) for name, score in scores.items()
    }
    makes |= {name: (lambda mask=mask: flex.attention(q, k, v, mask=mask)) for name, mask in masks.items()}
    return makes | {"sink": lambda: flex.with_sink(q, k, v, sinks)}
