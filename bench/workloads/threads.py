"""Two threads beside one, by the clock on the wall: a machine that others use too says little here."""

from collections.abc import Iterator

from bench import own
from bench.peers import pytorch
from bench.workload import Workload, share_of
from bench.workloads.backward import drawn, exact
from clearhead.cli.bench import Shape, causal_exact, operands, operations


def workloads(*, quick: bool) -> Iterator[Workload]:
    """Forward, and gradients of many heads and of one."""
    shape: Shape = (1, 2, 130, 16) if quick else (1, 8, 2048, 64)
    q, k, v = operands(shape)
    yield Workload(
        f"forward, {shape}",
        lambda: causal_exact(q, k, v),
        {"clearhead": lambda: own.forward(q, k, v, threads=2)},
        {"PyTorch SDPA": lambda: pytorch.sdpa(q, k, v, threads=2)},
        {"one thread": lambda: own.forward(q, k, v)},
        operations=operations(shape),
        promises=(share_of("one thread", 1.85),),
        clock="wall",
    )
    for shape in ((1, 2, 130, 16),) if quick else ((1, 8, 2048, 64), (1, 1, 4096, 64)):
        arrays = drawn(shape)
        yield Workload(
            f"gradients, {shape}",
            lambda arrays=arrays: exact(arrays, {}),
            {"clearhead": lambda arrays=arrays: own.gradients(*arrays, threads=2)},
            {},
            {"one thread": lambda arrays=arrays: own.gradients(*arrays)},
            promises=(share_of("one thread", 1.8),),
            clock="wall",
        )
