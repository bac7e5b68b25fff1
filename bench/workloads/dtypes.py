"""Operands of 16 bits, exact and native, beside float32."""

from collections.abc import Iterator

import numpy as np

from bench import own
from bench.peers import pytorch
from bench.workload import Workload, ahead, share_of
from bench.workloads.backward import PRODUCTS
from clearhead.arrays import Array
from clearhead.cli.bench import Shape, causal_exact, operands, operations
from clearhead.cli.race import Exact
from clearhead.definition.gradient import gradients

SHAPES: tuple[Shape, ...] = ((1, 8, 2048, 64), (1, 4, 4096, 64))
SHORT: Shape = (1, 8, 512, 64)  # where rounding the results weighs most
SMALL: Shape = (1, 2, 130, 16)
CLOSE = 0.05  # of results that are rounded to 8 bits
WIDENED = "operands are widened to float32 and computed in it, while the peer's products are of bfloat16 pairs"


def workloads(*, quick: bool) -> Iterator[Workload]:
    """bfloat16, float16 and native forwards; gradients."""
    import ml_dtypes

    for shape in (SMALL,) if quick else SHAPES:
        plain = operands(shape)
        for name, kind, options, least in (
            ("bfloat16", ml_dtypes.bfloat16, {}, 0.9),
            ("float16", np.float16, {}, 0.9),
            ("bfloat16", ml_dtypes.bfloat16, {"precision": "native"}, 1.5),
        ):
            halves = [x.astype(kind) for x in plain]
            wide = causal_exact(*(np.asarray(x, np.float64) for x in halves))
            yield Workload(
                f"{name}{' native' if options else ''}, {shape}",
                lambda wide=wide: Exact(wide.values, wide.pick, CLOSE),
                {"clearhead": lambda halves=halves, options=options: own.forward(*halves, **options)},
                {"PyTorch SDPA": lambda plain=plain, name=name: pytorch.sdpa(*plain, dtype=name)},
                {"float32": lambda plain=plain: own.forward(*plain)},
                operations=operations(shape),
                bytes=4 * halves[0].nbytes,
                promises=(ahead(), share_of("float32", least)),
                cause="" if options else WIDENED,
            )
    yield backward("bfloat16", ml_dtypes.bfloat16, SMALL if quick else SHAPES[0])
    yield backward("float16", np.float16, SMALL if quick else SHORT)


def backward(name: str, kind: type, shape: Shape) -> Workload:
    """Gradients of operands of 16 bits."""
    plain = [*operands(shape), operands(shape)[0]]
    halves = [x.astype(kind) for x in plain]
    return Workload(
        f"gradients, {name}, {shape}",
        lambda: rounded(halves),
        {"clearhead": lambda: own.gradients(*halves)},
        {"PyTorch SDPA": lambda: pytorch.gradients(*plain, dtype=name)},
        {"float32": lambda: own.gradients(*plain)},
        operations=PRODUCTS / 4 * operations(shape),
        bytes=8 * halves[0].nbytes,
        promises=(ahead(), share_of("float32", 0.9)),
        cause=WIDENED,
    )


def rounded(halves: list[Array]) -> Exact:
    """The definition's gradients of the first head of operands that were rounded."""
    d = gradients(*(np.asarray(x[0, :1], np.float64) for x in halves))
    return Exact(np.stack([d.q, d.k, d.v])[:, 0], lambda answer: answer[:, 0, 0], 2 * CLOSE)
