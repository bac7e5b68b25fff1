"""Gradients: forward and backward together, plain and with rules. Operations: 3.5 times the forward's."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import own
from bench.peers import jax_nn, pytorch
from bench.workload import Workload, ahead, as_exact_as
from clearhead import alibi, bias, causal, problem, relative, softcap, window
from clearhead.arrays import Array
from clearhead.cli.bench import Shape
from clearhead.cli.race import Exact
from clearhead.definition.gradient import gradients
from clearhead.rules.masks import visible
from clearhead.rules.scores import Alibi, Relative

SHAPES: tuple[Shape, ...] = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 4, 4096, 64))
SMALL: Shape = (1, 2, 130, 16)
PRODUCTS = 14  # operations of a visible pair and dim
BIAS = "the gradient of the bias, n × n numbers, is written too"


def workloads(*, quick: bool) -> Iterator[Workload]:
    """Plain causal gradients, then rules beside them."""
    for shape in (SMALL,) if quick else SHAPES:
        yield plain(shape)
    yield from ruled((1, 2, 64, 16) if quick else (1, 8, 2048, 64))


def drawn(shape: Shape) -> list[Array]:
    """q, k, v and the output's gradient."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(4)]


def exact(arrays: list[Array], rules: dict[str, Any]) -> Exact:
    """The definition's gradients of the first head, whose rules are those of all heads."""
    d = gradients(*(x[0, :1].astype(np.float64) for x in arrays), **rules)
    return Exact(np.stack([d.q, d.k, d.v])[:, 0], lambda answer: answer[:, 0, 0], close=1e-3)


def plain(shape: Shape) -> Workload:
    """One shape without rules."""
    arrays = drawn(shape)
    q, k, v, _ = arrays
    return Workload(
        f"{shape}",
        lambda: exact(arrays, {}),
        {"clearhead": lambda: own.gradients(*arrays)},
        {
            "PyTorch SDPA": lambda: pytorch.gradients(*arrays),
            "PyTorch eager": lambda: pytorch.gradients(*arrays, by_formula=True),
            "JAX": lambda: jax_nn.gradients(*arrays),
        },
        operations=PRODUCTS * problem(q, k, v, mask=causal()).pairs * shape[-1],
        bytes=8 * q.nbytes,
        promises=(ahead(), *as_exact_as("PyTorch SDPA")),
    )


def ruled(shape: Shape) -> Iterator[Workload]:
    """Rules, the gradients of their arrays included, beside the plain call, and PyTorch with a dense mask."""
    arrays = drawn(shape)
    q, k, v, _ = arrays
    heads, n = shape[1:3]
    rng = np.random.default_rng(1)
    slopes = np.full(heads, 0.25, np.float32)
    distance = (np.arange(n) - np.arange(n)[:, None]).astype(np.float32)
    hidden = np.where(distance <= 0, 0, -np.inf).astype(np.float32)
    table = rng.standard_normal((n, n)).astype(np.float32)
    cases: dict[str, dict[str, Any]] = {
        "softcap": {"score": softcap(30.0)},
        "ALiBi": {"score": alibi(slopes)},
        "window": {"mask": window(min(255, n // 4))},
        "function with tanh": {"score": lambda s, b, h, q, k: s * 0.5 + slopes[h] * np.tanh(s)},
        "relative": {"score": relative(rng.standard_normal((heads, 257)).astype(np.float32), 128)},
        "bias": {"score": bias(table)},
    }
    seen = {
        "ALiBi": (slopes[:, None, None] * distance + hidden)[None],
        "window": visible(window(min(255, n // 4)), n, n),
        "bias": table + hidden,
    }
    of_plain = problem(q, k, v, mask=causal()).pairs
    for name, rules in cases.items():
        pairs = problem(q, k, v, mask=rules.get("mask", causal())).pairs
        peers = {"PyTorch SDPA": lambda name=name: pytorch.gradients(*arrays, seen=seen[name])} if name in seen else {}
        yield Workload(
            f"{name}, {shape}",
            lambda rules=rules: exact(arrays, head_of(rules)),
            {"clearhead": lambda rules=rules: own.gradients(*arrays, **rules)},
            peers,
            {"plain": lambda: own.gradients(*arrays)},
            operations=PRODUCTS * pairs * shape[-1],
            operations_of={"plain": PRODUCTS * of_plain * shape[-1]},
            promises=(ahead(),) if peers else (),
            cause=BIAS if name == "bias" else "",
        )


def head_of(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules for the first head alone: those of every head here."""
    match rules.get("score"):
        case Alibi(slopes=slopes):
            return rules | {"score": alibi(slopes[:1])}
        case Relative(table=table, max_distance=most):
            return rules | {"score": relative(table[:1], most)}
    return rules
