"""Weights beside attention alone and beside a matrix in PyTorch, in one process and in turns, promise by promise.

    python bench/weights.py [--seconds 20]

Summaries and arrays include the forward pass that gives output and LSE. float32, causal, dim 64, one thread.
"""

import argparse
import sys
import time
import tracemalloc

import numpy as np
import torch

from clearhead import attend, attention, full, similarity, token_matches, weights

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
FUSED = ("entropy", "received_sum", "top", "distance", "first")
missed = []


def arrays(*shape):
    """Random q, k and v."""
    return [RNG.standard_normal(shape).astype(np.float32) for _ in range(3)]


def race(contenders, seconds):
    """Each contender's least time over rounds in turns."""
    best = dict.fromkeys(contenders, 1e9)
    for contender in contenders.values():
        contender()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def promise(what, value, limit, unit="", most=True):
    """One line, and whether it is kept."""
    kept = value <= limit if most else value >= limit
    print(
        f"{'PASS' if kept else 'MISS'}  {what}: {value:.2f}{unit} ({'at most' if most else 'at least'} {limit}{unit})",
        flush=True,
    )
    if not kept:
        missed.append(what)


def materialised(q, k, v):
    """The same answers from the whole matrix, as one writes them in PyTorch."""
    n, (q, k, v) = q.shape[-2], (torch.from_numpy(x) for x in (q, k, v))
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
    apart = (torch.arange(n)[:, None] - torch.arange(n)).float()

    def call():
        a = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill_(hidden, -torch.inf).softmax(-1)
        entropy = -torch.xlogy(a, a).sum(-1)
        return a @ v, entropy, a.sum(-2), a.topk(8), torch.einsum("bhij,ij->bhi", a, apart), a[..., 0]

    return call


def summaries(seconds):
    """Entropy and received mass, and the fused summary, at (1, 8, 2048, 64) and (1, 2, 8192, 64)."""
    for shape in ((1, 8, 2048, 64), (1, 2, 8192, 64)):
        q, k, v = arrays(*shape)

        def asked(*names, q=q, k=k, v=v):
            return lambda: attend(q, k, v, threads=1).weights.summary(*names)

        contenders = {
            "forward": lambda q=q, k=k, v=v: attention(q, k, v, threads=1),
            "two": asked("entropy", "received_sum"),
            "fused": asked(*FUSED),
        }
        if shape[2] == 2048:
            contenders["matrix"] = materialised(q, k, v)
            contenders["array"] = lambda q=q, k=k, v=v: np.asarray(attend(q, k, v, threads=1).weights)
        best = race(contenders, seconds)
        promise(f"{shape} entropy and received mass / forward", best["two"] / best["forward"], 1.6)
        promise(f"{shape} fused summary / forward", best["fused"] / best["forward"], 2.0)
        if "matrix" in best:
            promise(f"{shape} matrix in PyTorch / fused summary", best["matrix"] / best["fused"], 6, most=False)
            work = 2 * shape[1] * shape[3] * shape[2] * (shape[2] + 1)
            promise(f"{shape} output and np.asarray(w)", work / best["array"] / 1e9, 112, " GF/s", most=False)


def questions(seconds):
    """32768 × 1 head, LSE known: each question that sums shares, compares or lists, beside the forward pass; memory."""
    n = 32768
    q, k, v = arrays(n, 64)
    w = attend(q, k, v, threads=1).weights
    groups = {"system": slice(0, 20), "needle": [31, 32], "image": RNG.random(n) < 0.5}
    matches, factors = token_matches(RNG.integers(0, 500, n)), RNG.random(n)
    other = attend(k, q, v, threads=1).weights
    asked = {
        "groups": lambda: w.summary("groups", groups=groups),
        "distances": lambda: w.summary("distances"),
        "matches": lambda: w.summary("matches", matches=matches),
        "sink_share": lambda: w.summary("sink_share"),
        "received_sum and top by factors": lambda: w.summary("received_sum", "top", factors=factors),
        "similarity of a head to itself": lambda: similarity(w),
        "rows_of": lambda: w.rows_of(n // 2),
        "scores of 64 queries": lambda: w.scores[:64],
    }
    best = race({"forward": lambda: attention(q, k, v, threads=1), **asked}, seconds)
    for name in asked:
        promise(f"{name} at 32768 / forward", best[name] / best["forward"], 2.5)
    pair = race({"forward": lambda: attention(q, k, v, threads=1), "pair": lambda: similarity(w, other)}, seconds / 2)
    promise("similarity of two heads at 32768 / forward passes of both", pair["pair"] / pair["forward"] / 2, 2.5)
    tracemalloc.start()
    for name, call in (*asked.items(), ("similarity of two heads", lambda: similarity(w, other))):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        used = tracemalloc.get_traced_memory()[1] - before
        promise(f"memory of {name} at 32768", used / 2**20, 16, " MiB")
    tracemalloc.stop()


def long(seconds):
    """32768 keys: one row of 8 heads beside decode, a picture of one head beside its forward pass, memory."""
    q, k, v = arrays(8, 32768, 64)
    lse = np.zeros((8, 32768), np.float32)
    lse[:, -1:] = attend(q[:, -1:], k, v, mask=full()).lse
    w = weights(q, k, lse=lse, threads=1)
    best = race(
        {"decode": lambda: attention(q[:, -1:], k, v, mask=full(), threads=1), "row": lambda: w.row(-1)}, seconds / 4
    )
    promise("one row of 32768 keys × 8 heads / decode", best["row"] / best["decode"], 1.2)
    head = attend(q[0], k[0], v[0], threads=1).weights
    best = race({"forward": lambda: attention(q[0], k[0], v[0], threads=1), "map": lambda: head.map()}, seconds)
    promise("a picture of 512² of 32768² / forward", best["map"] / best["forward"], 0.7)
    head.summary()  # compiles
    tracemalloc.start()
    for name, call in {"map": head.map, "summary": head.summary, "row": lambda: head.row(-1)}.items():
        tracemalloc.reset_peak()
        call()
        promise(f"memory of {name} at 32768", tracemalloc.get_traced_memory()[1] / 2**20, 16, " MiB")
    tracemalloc.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    summaries(options.seconds)
    long(options.seconds)
    questions(options.seconds)
    sys.exit(len(missed))
