"""Gradients: forward and backward against PyTorch and the peak, with rules, by two threads; memory and accuracy.

    python bench/backward.py [--only NAME ...] [--seconds 4]

One process, in turns, least times. Operations of forward and backward together: 3.5 times the forward's, per visible
pair. PyTorch computes the same gradients by autograd through its own attention. Accuracy is against float64 gradients.
"""

import argparse
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from clearhead import alibi, attend, bias, problem, relative, softcap, window
from clearhead.cli.bench import race
from clearhead.definition.gradient import gradients
from clearhead.machine.peak import Peak
from clearhead.rules.masks import causal

SHAPES = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 4, 4096, 64))
RNG = np.random.default_rng(0)


def arrays(shape: tuple[int, ...], count: int = 4) -> list[np.ndarray]:
    """q, k, v and the output's gradient."""
    return [RNG.standard_normal(shape).astype(np.float32) for _ in range(count)]


def torch_gradients(q: np.ndarray, k: np.ndarray, v: np.ndarray, d_out: np.ndarray) -> Callable[[], object]:
    """PyTorch's forward and backward."""
    tensors, grad = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)], torch.from_numpy(d_out)
    return lambda: torch.autograd.grad(F.scaled_dot_product_attention(*tensors, is_causal=True), tensors, grad)


def speed(seconds: float) -> Iterator[str]:
    """Plain causal gradients."""
    for shape in SHAPES:
        q, k, v, d_out = arrays(shape)
        contenders = {
            "ours": lambda a=(q, k, v), d=d_out: attend(*a, threads=1).backward(d),
            "torch": torch_gradients(q, k, v, d_out),
        }
        best, peak = race(contenders, Peak("float32"), seconds)
        rate = 14 * problem(q, k, v, mask=causal()).pairs * shape[-1] / best["ours"] / 1e9
        ratio = best["torch"] / best["ours"]
        yield f"{shape}: {rate:.0f} GF/s, {rate / peak:.3f} of the peak, {ratio:.2f} × torch"


def rules(seconds: float) -> Iterator[str]:
    """Rules beside the plain call, per visible pair, all gradients of rules' arrays included."""
    q, k, v, d_out = arrays((1, 8, 2048, 64))
    slopes = np.linspace(0.1, 0.5, 8).astype(np.float32)
    table = RNG.standard_normal((8, 257)).astype(np.float32)
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "softcap": {"score": softcap(30.0)},
        "ALiBi": {"score": alibi(slopes)},
        "window": {"mask": window(255)},
        "function": {"score": lambda s, b, h, q, k: s * 0.5 + slopes[h] * np.tanh(s)},
        "relative": {"score": relative(table, 128)},
        "bias": {"score": bias(RNG.standard_normal((2048, 2048)).astype(np.float32))},
    }
    calls = {name: (lambda r=r: attend(q, k, v, threads=1, **r).backward(d_out)) for name, r in cases.items()}
    best, _ = race(calls, Peak("float32"), 4 * seconds)
    pairs = {name: problem(q, k, v, mask=some.get("mask", causal())).pairs for name, some in cases.items()}
    for name in cases:
        yield f"{name}: {pairs[name] / best[name] / (pairs['plain'] / best['plain']):.3f} of the plain rate"


def threads(seconds: float) -> Iterator[str]:
    """Two threads against one, with many heads and with one."""
    for shape in ((1, 8, 2048, 64), (1, 1, 4096, 64)):
        q, k, v, d_out = arrays(shape)
        calls = {str(n): (lambda n=n, a=(q, k, v), d=d_out: attend(*a, threads=n).backward(d)) for n in (1, 2)}
        best, _ = race(calls, Peak("float32"), seconds)
        yield f"{shape}: two threads are {best['1'] / best['2']:.2f} times as fast"


def memory(seconds: float) -> Iterator[str]:
    """What one call allocates beyond its results."""
    q, k, v, d_out = arrays((1, 1, 16384, 64))
    attend(q[..., :64, :], k[..., :64, :], v[..., :64, :], threads=1).backward(d_out[..., :64, :])
    tracemalloc.start()
    done = attend(q, k, v, threads=1)
    done.backward(d_out)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = 4 * q.nbytes
    yield f"16384, one head: {(most - results) / (results + 4 * q.nbytes):.4f} of inputs and results beside them"


def accuracy(seconds: float) -> Iterator[str]:
    """Errors of each gradient beside PyTorch's."""
    for shape in ((2, 512, 64), (1, 2048, 64), (1, 4096, 64)):
        q, k, v, d_out = arrays(shape)
        exact = gradients(*(x.astype(np.float64) for x in (q, k, v, d_out)))
        got, theirs = attend(q, k, v).backward(d_out), torch_gradients(*(x[None] for x in (q, k, v, d_out)))()
        for name, other in zip("qkv", theirs, strict=True):
            ours = np.abs(getattr(got, name) - getattr(exact, name))
            other_error = np.abs(other[0].numpy() - getattr(exact, name))
            mean, most = ours.mean() / other_error.mean(), ours.max() / other_error.max()
            yield f"{shape} d{name}: mean error {ours.mean():.1e}, {mean:.2f} of torch's, maximum {most:.2f} of torch's"


PARTS = {part.__name__: part for part in (speed, rules, threads, memory, accuracy)}


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        for line in PARTS[name](options.seconds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
