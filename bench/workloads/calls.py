"""Small calls, where there is hardly anything to compute: what the way to the kernel costs."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import own
from bench.peers import pytorch
from bench.workload import Promise, Workload
from clearhead.cli.bench import Shape, causal_exact, operands, operations, plain_numpy
from clearhead.cli.race import Contender

SHAPES: tuple[Shape, ...] = ((1, 1, 16, 64), (1, 1, 8, 16), (1, 8, 8, 64))
CHECKS = (
    "a call from tensors is checked (modes, wrappers, gradients wanted, memory), then described as arrays; "
    "the kernel itself takes 0.7 µs"
)


def workloads(*, quick: bool) -> Iterator[Workload]:
    """From arrays, and from tensors."""
    for shape in SHAPES[:1] if quick else SHAPES:
        q, k, v = operands(shape)
        yield Workload(
            f"{shape}, from arrays",
            lambda q=q, k=k, v=v: causal_exact(q, k, v),
            {"clearhead": lambda q=q, k=k, v=v: own.forward(q, k, v)},
            {
                "PyTorch SDPA": lambda q=q, k=k, v=v: pytorch.sdpa(q, k, v),
                "numpy": lambda q=q, k=k, v=v: Contender(lambda: plain_numpy(q, k, v)),
            },
            operations=operations(shape),
            promises=(microseconds(12.0),) if shape == SHAPES[0] else (),
        )
        yield Workload(
            f"{shape}, from tensors",
            lambda q=q, k=k, v=v: causal_exact(q, k, v),
            {"clearhead": lambda q=q, k=k, v=v: from_tensors(q, k, v)},
            {"PyTorch SDPA": lambda q=q, k=k, v=v: pytorch.sdpa(q, k, v)},
            operations=operations(shape),
            cause=CHECKS,
        )


def microseconds(bound: float) -> Promise:
    """What a call takes, its work included."""
    return Promise("a call", bound, lambda row: 1e6 * row.entries["clearhead"].seconds, "µs", at_most=True)


def from_tensors(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Contender:
    """The function that stands in for PyTorch's."""
    torch = pytorch.torch_with()
    from clearhead.adapters.torch import scaled_dot_product_attention

    operands = pytorch.tensors(q, k, v)

    def call() -> Any:
        with torch.no_grad():
            return scaled_dot_product_attention(*operands, is_causal=True)

    return Contender(call, pytorch.as_array)
