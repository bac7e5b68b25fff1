"""One query over many keys, which come from memory: what counts is the rate at which they are read."""

from collections.abc import Iterator

import numpy as np

from bench import own
from bench.hold import evict
from bench.peers import jax_nn, onnx_runtime, open_vino, pytorch
from bench.workload import Workload, share_of
from clearhead import KeyValueCache, full
from clearhead.arrays import Array
from clearhead.cli.race import Contender, Exact
from clearhead.definition import textbook

IN_TURNS = (
    "keys and values are read in turns, 32 KiB each, where torch.dot has two long streams: 17 to 20 GB/s with every "
    "line asked for ahead, 14 to 16 with every second or fourth, 11 to 13 with none"
)


def workloads(*, quick: bool) -> Iterator[Workload]:
    """8 query heads over as many key heads and over 2, from a cache and from arrays."""
    heads, keys, dim = (4, 300, 16) if quick else (8, 32768, 64)
    for key_heads in (heads, heads // 4):
        rng = np.random.default_rng(0)
        q = rng.standard_normal((1, heads, 1, dim)).astype(np.float32)
        k, v = (rng.standard_normal((1, key_heads, keys, dim)).astype(np.float32) for _ in range(2))
        yield decode(q, k, v)


def decode(q: Array, k: Array, v: Array) -> Workload:
    """One ratio of heads."""
    cache = KeyValueCache()
    cache.append(k, v)
    wide = [x.astype(np.float64) for x in (q, k, v)]
    return Workload(
        f"{q.shape[1]}:{k.shape[1]} × {k.shape[2]}",
        lambda: Exact(textbook.attention(*wide, mask=full())),
        {"clearhead": lambda: own.forward(q, cache), "clearhead, arrays": lambda: own.forward(q, k, v, mask=full())},
        {
            "PyTorch SDPA": lambda: pytorch.sdpa(q, k, v, causal=False),
            "ONNX Runtime GroupQueryAttention": lambda: onnx_runtime.grouped_query(q, k, v),
            "OpenVINO": lambda: open_vino.sdpa(q, k, v, causal=False),
            "JAX": lambda: jax_nn.attention(q, k, v, causal=False),
        },
        {"memory": lambda: memory(k, v)},
        bytes=k.nbytes + v.nbytes,
        operations=4 * q.shape[1] * k.shape[2] * q.shape[3],
        promises=(share_of("memory", 0.8), share_of("memory", 0.8, "clearhead, arrays")),
        cause=IN_TURNS,
        before=evict,
    )


def memory(k: Array, v: Array) -> Contender:
    """Reading as many bytes: the dot product of all keys and all values."""
    torch = pytorch.torch_with()
    a, b = pytorch.tensors(k.reshape(-1), v.reshape(-1))
    return Contender(lambda: torch.dot(a, b))
