"""One head at growing lengths: time grows as n², memory as n, where a matrix needs n² of both."""

from collections.abc import Iterator

import numpy as np

from bench import own
from bench.peers import onnx_runtime, pytorch
from bench.workload import Workload
from bench.workloads.backward import PRODUCTS, drawn
from clearhead.arrays import Array
from clearhead.cli.bench import Shape, causal_exact, operands, operations
from clearhead.cli.race import Exact
from clearhead.definition.gradient import gradients
from clearhead.rules.masks import causal

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
MATRIX = 8192  # the longest whose matrix is made
GRADIENTS = (8192, 16384)


def workloads(*, quick: bool) -> Iterator[Workload]:
    """Forward at each length with its memory, then gradients at long ones."""
    for length in (128, 256) if quick else LENGTHS:
        shape: Shape = (1, 1, length, 16 if quick else 64)
        q, k, v = operands(shape)
        peers = {
            "PyTorch SDPA": lambda q=q, k=k, v=v: pytorch.sdpa(q, k, v),
            "ONNX Runtime GroupQueryAttention": lambda q=q, k=k, v=v: onnx_runtime.grouped_query(q, k, v),
        }
        if length <= MATRIX:
            peers["PyTorch eager"] = lambda q=q, k=k, v=v: pytorch.eager(q, k, v)
        yield Workload(
            f"forward of {length} items",
            lambda q=q, k=k, v=v: causal_exact(q, k, v),
            {"clearhead": lambda q=q, k=k, v=v: own.forward(q, k, v)},
            peers,
            operations=operations(shape),
            bytes=4 * q.nbytes,
            memory=length >= 4096,
        )
    for length in () if quick else GRADIENTS:
        arrays = drawn((1, 1, length, 64))
        yield Workload(
            f"gradients of {length} items",
            lambda arrays=arrays: last_rows(arrays),
            {"clearhead": lambda arrays=arrays: own.gradients(*arrays)},
            {"PyTorch SDPA": lambda arrays=arrays: pytorch.gradients(*arrays)},
            operations=PRODUCTS / 4 * operations((1, 1, length, 64)),
            bytes=8 * arrays[0].nbytes,
        )


def last_rows(arrays: list[Array]) -> Exact:
    """dQ of the last queries, which see all keys; the other gradients are sums over queries too many for a matrix."""
    n, some = arrays[0].shape[-2], 16
    q, k, v, d_out = (x[0].astype(np.float64) for x in arrays)
    d = gradients(q[:, n - some :], k, v, d_out[:, n - some :], mask=causal(at=n - some))
    return Exact(d.q, lambda answer: answer[0, 0][..., n - some :, :], close=1e-3)
