"""Two processes on one sequence beside one: processor time of the busier rank, and equal bits.

What two machines would need is the processor time of the busier rank, gloo's threads included: it does not depend on
what else runs here, and a wall clock over shared cores would. "One" is the mean of both processes alone, in turns.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.workload import Reading, at_least

RANKS, DIM = 2, 64
WAYS = ("gather", "stream")
TWO_WALKS = "with gradients, two walks in place of one leave 1.56 at most"


def workloads(*, quick: bool) -> Iterator[Reading]:
    """Forward of one head and of four, and gradients of four."""
    tokens = 4096 if quick else 16384
    for heads, gradients, bound in ((1, False, 1.5), (4, False, 1.7), (4, True, 1.3)):
        if quick and heads > 1:
            continue
        name = f"{heads} × {tokens} × {DIM}{', with gradients' if gradients else ''}, two ranks"
        yield Reading(
            name,
            lambda heads=heads, gradients=gradients: two(tokens, heads, gradients=gradients, rounds=2 if quick else 5),
            "× one process",
            tuple(at_least(way, bound, "×") for way in WAYS),
            TWO_WALKS if gradients else "",
        )


def two(tokens: int, heads: int, *, gradients: bool, rounds: int) -> dict[str, float]:
    """Start both processes; how many times as fast as one each way is, the median of the rounds."""
    from torch.multiprocessing.spawn import spawn

    with tempfile.TemporaryDirectory() as folder:
        spawn(one_of, (folder, tokens, heads, gradients, rounds), nprocs=RANKS)
        lines = Path(folder, "found").read_text(encoding="utf-8").split()
    return dict(zip(WAYS, map(float, lines), strict=True))


def one_of(rank: int, folder: str, tokens: int, heads: int, gradients: bool, rounds: int) -> None:
    """One of the processes."""
    import torch
    import torch.distributed as dist

    from clearhead.adapters.torch import attention
    from clearhead.adapters.torch.distributed import Layout, shard, sharded_attention

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})  # alone and together on the same core
    store = dist.FileStore(str(Path(folder) / "store"), RANKS)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    whole = torch.randn(4, heads, tokens, DIM)
    layout = Layout(tokens, RANKS, unit=2048)
    mine = shard(whole, layout)

    def called(x: torch.Tensor, function: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        operands = [part.requires_grad_(gradients) for part in x[:3].clone()]
        output = function(*operands)
        return [output.detach(), *(torch.autograd.grad(output, operands, x[3]) if gradients else ())]

    def together(way: Any) -> list[torch.Tensor]:
        return called(mine, lambda q, k, v: sharded_attention(q, k, v, layout, way=way))

    def shared(own: Any) -> list[Any]:
        found: list[Any] = [None] * RANKS
        dist.all_gather_object(found, own)
        return found

    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):
        for other in range(RANKS):
            dist.barrier()
            if other == rank:
                alone, want = seconds(lambda: called(whole, attention))
        dist.barrier()
        one = sum(shared(alone)) / RANKS
        for way in WAYS:
            dist.barrier()
            spent, got = seconds(lambda way=way: together(way))
            both = max(shared(spent))
            if turn:  # the first one compiles
                ratios[way].append(one / both)
            elif not all(torch.equal(shard(a, layout), b) for a, b in zip(want, got, strict=True)):
                raise ArithmeticError(f"{way} has other bits than one process")
    if rank == 0:
        found = " ".join(str(statistics.median(ratios[way])) for way in WAYS)
        Path(folder, "found").write_text(found, encoding="utf-8")
    dist.destroy_process_group()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of this process, all its threads included, and what the work gave."""
    start = time.process_time()
    done = work()
    return time.process_time() - start, done
