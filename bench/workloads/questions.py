"""Questions of one long head's weights whose LSE is known: time beside the forward pass, and memory."""

import tracemalloc
from typing import Any

import numpy as np

from bench.workload import Promise, Reading, Workload, at_most, takes
from clearhead import attend, attention, similarity, token_matches
from clearhead.cli.race import Contender

PAIR = "similarity of two heads"  # two forward passes' worth
QUESTIONS = (
    "groups", "distances", "matches", "sink_share", "received_sum and top by factors", "rows_of",
    "scores of 64 queries", PAIR,
)  # fmt: skip
BOUND, OF_PAIR = 2.5, 5.0  # times the forward pass of one head
MOST = 16.0  # MiB


def asked_of(length: int) -> dict[str, Any]:
    """Questions of one head whose LSE is known, by name."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((length, 64)).astype(np.float32) for _ in range(3))
    w, other = (attend(a, b, v, threads=1).weights for a, b in ((q, k), (k, q)))
    groups = {"system": slice(0, 20), "needle": [31, 32], "image": rng.random(length) < 0.5}
    matches, factors = token_matches(rng.integers(0, 500, length)), rng.random(length)
    return {
        "forward": lambda: attention(q, k, v, threads=1),
        "groups": lambda: w.summary("groups", groups=groups),
        "distances": lambda: w.summary("distances"),
        "matches": lambda: w.summary("matches", matches=matches),
        "sink_share": lambda: w.summary("sink_share"),
        "received_sum and top by factors": lambda: w.summary("received_sum", "top", factors=factors),
        "rows_of": lambda: w.rows_of(length // 2),
        "scores of 64 queries": lambda: w.scores[:64],
        "picture": lambda: w.map(),
        "whole summary": lambda: w.summary(),
        "row": lambda: w.row(-1),
        PAIR: lambda: similarity(w, other),
    }


def beside_forward(length: int) -> Workload:
    """Each question's time; its answers are its own, and tests compare them with the definition's."""
    calls = {name: (lambda call=call: Contender(call)) for name, call in asked_of(length).items()}
    bounds: tuple[Promise, ...] = tuple(
        takes("forward", OF_PAIR if name == PAIR else BOUND, name) for name in QUESTIONS
    )
    return Workload(
        f"questions of {length}² weights, LSE known",
        None,
        {name: calls[name] for name in QUESTIONS},
        {},
        {"forward": calls["forward"]},
        promises=bounds,
    )


def memory(length: int) -> Reading:
    """What Python's allocators give a question at most."""

    def take() -> dict[str, float]:
        asked = asked_of(length)
        del asked["forward"]
        return {name: allocated(call) for name, call in asked.items()}

    names = (*QUESTIONS, "picture", "whole summary", "row")
    bounds = tuple(at_most(name, MOST, "MiB") for name in names)
    return Reading("memory of a question beside q, k and LSE", take, "MiB", bounds)


def allocated(call: Any) -> float:
    """MiB at most during a call that has been compiled."""
    call()
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20
