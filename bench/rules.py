"""Rules, dtypes and decoding beside the plain kernel and PyTorch, in one process and in turns.

    python bench/rules.py [--seconds 20]

Rates are per visible pair. PyTorch gets the dense mask or bias that it needs. `torch.dot` over as many bytes is the
measure of what memory gives.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from clearhead import KeyValueCache, alibi, attention, causal, documents, full, problem, softcap, window
from clearhead.rules.masks import visible

torch.set_num_threads(1)
RNG = np.random.default_rng(0)


def race(contenders, seconds):
    """Each contender's least time over rounds in turns."""
    best = dict.fromkeys(contenders, 1e9)
    for contender in contenders.values():
        contender()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, contender in contenders.items():
            for _ in range(2):
                start = time.perf_counter()
                contender()
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def rules(seconds):
    """(1, 8, 2048, 64): each rule beside plain causal attention and PyTorch's."""
    shape, bias = (1, 8, 2048, 64), np.linspace(0.001, 0.01, 8).astype(np.float32)
    q, k, v = (RNG.standard_normal(shape).astype(np.float32) for _ in range(3))
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "softcap": {"score": softcap(30.0)},
        "ALiBi": {"score": alibi(8)},
        "sink": {"sink": np.zeros(8, np.float32)},
        "window": {"mask": window(255)},
        "documents": {"mask": documents([512] * 4) & causal()},
        "function": {"score": lambda s, b, h, q, k: s + bias[h] * (k - q)},
    }
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    distance = np.arange(2048)[None, :] - np.arange(2048)[:, None]
    hidden = np.where(distance <= 0, 0, -np.inf)

    def masked(seen):
        mask = torch.from_numpy(seen)
        return lambda: F.scaled_dot_product_attention(*tensors, attn_mask=mask)

    theirs = {
        "plain": lambda: F.scaled_dot_product_attention(*tensors, is_causal=True),
        "window": masked(visible(window(255), 2048, 2048)),
        "documents": masked(visible(documents([512] * 4) & causal(), 2048, 2048)),
        "function": masked((bias[:, None, None] * distance + hidden).astype(np.float32)[None]),
        "ALiBi": masked((alibi(8).slopes[:, None, None] * distance + hidden).astype(np.float32)[None]),
    }
    contenders = {name: (lambda rules=rules: attention(q, k, v, threads=1, **rules)) for name, rules in cases.items()}
    contenders |= {f"torch {name}": call for name, call in theirs.items()}
    best = race(contenders, seconds)
    pairs = {name: problem(q, k, v, mask=some.get("mask", causal())).pairs for name, some in cases.items()}
    for name in cases:
        share = pairs[name] / best[name] / (pairs["plain"] / best["plain"])
        torch_ratio = f"{best[f'torch {name}'] / best[name]:.1f}" if name in theirs else "–"
        print(
            f"{name:10} {256 * pairs[name] / best[name] / 1e9:6.1f} GF/s  {share:.3f} of plain  {torch_ratio} × torch"
        )


def sixteen_bits(seconds):
    """bfloat16 and float16 beside float32 and PyTorch's bfloat16."""
    import ml_dtypes

    for shape in ((1, 8, 2048, 64), (1, 4, 4096, 64)):
        arrays = [RNG.standard_normal(shape).astype(np.float32) for _ in range(3)]
        halves = {name: [x.astype(kind) for x in arrays] for name, kind in
                  (("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16))}  # fmt: skip
        tensors = [torch.from_numpy(x).bfloat16() for x in arrays]
        contenders = {"float32": lambda arrays=arrays: attention(*arrays, threads=1)}
        contenders |= {name: (lambda some=some: attention(*some, threads=1)) for name, some in halves.items()}
        contenders["native"] = lambda some=halves["bfloat16"]: attention(*some, threads=1, precision="native")
        contenders["torch"] = lambda tensors=tensors: F.scaled_dot_product_attention(*tensors, is_causal=True)
        best = race(contenders, seconds)
        for name in (*halves, "native"):
            share, ratio = best["float32"] / best[name], best["torch"] / best[name]
            print(f"{shape} {name}: {share:.3f} of float32, {ratio:.1f} × torch")


def decoding(seconds):
    """One query over 32768 keys of 64 dims: 8 heads, and 8 heads sharing 2 key heads."""
    for heads, key_heads in ((8, 8), (8, 2)):
        q = RNG.standard_normal((heads, 1, 64)).astype(np.float32)
        k, v = (RNG.standard_normal((key_heads, 32768, 64)).astype(np.float32) for _ in range(2))
        cache = KeyValueCache()
        cache.append(k, v)
        a, b = (torch.from_numpy(x.reshape(-1)) for x in (k, v))
        tensors = [torch.from_numpy(x[None]) for x in (q, k, v)]
        contenders = {
            "dot": lambda a=a, b=b: torch.dot(a, b),
            "arrays": lambda q=q, k=k, v=v: attention(q, k, v, mask=full(), threads=1),
            "cache": lambda q=q, cache=cache: attention(q, cache, threads=1),
            "torch": lambda t=tensors, g=heads != key_heads: F.scaled_dot_product_attention(*t, enable_gqa=g),
        }
        best = race(contenders, seconds)
        for name in ("arrays", "cache", "torch"):
            rate = best["dot"] / best[name]
            ratio = best["torch"] / best[name]
            print(f"decode {heads}:{key_heads} {name}: {rate:.3f} of memory's rate, {ratio:.1f} × torch")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    rules(options.seconds)
    sixteen_bits(options.seconds / 4)
    decoding(options.seconds / 4)
