"""Two processes on one sequence against one: processor time of the busiest rank, in turns, and equal bits.

    python bench/distributed.py [--tokens 16384] [--heads 1] [--unit 2048] [--rounds 7] [--gradients]

What two machines would need is the processor time of the busier rank, gloo's threads included: it does not depend on
what else runs here, and a wall clock over shared cores would. "One" is the mean of both processes alone, in turns.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from clearhead.adapters.torch import attention
from clearhead.adapters.torch.distributed import Layout, shard, sharded_attention

RANKS, DIM = 2, 64


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of this process, all its threads included."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(rank: int, folder: str, options: argparse.Namespace) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})  # each process in turn alone and together on the same core
    store = dist.FileStore(str(Path(folder) / "store"), RANKS)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    whole = torch.randn(4, options.heads, options.tokens, DIM)
    layout = Layout(options.tokens, RANKS, unit=options.unit)
    mine = shard(whole, layout)
    results: dict[str, Any] = {}

    def alone() -> None:
        results["one"] = called(whole, attention)

    def together(way: Any) -> None:
        results[way] = called(mine, lambda q, k, v: sharded_attention(q, k, v, layout, way=way))

    def called(x: torch.Tensor, function: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        operands = [part.requires_grad_(options.gradients) for part in x[:3].clone()]
        output = function(*operands)
        return [output.detach(), *(torch.autograd.grad(output, operands, x[3]) if options.gradients else ())]

    times: dict[str, list[float]] = {"one": [], "gather": [], "stream": []}
    for turn in range(options.rounds + 1):
        for other in range(RANKS):
            dist.barrier()
            if other == rank:
                spent = seconds(alone)
        dist.barrier()
        times["one"].append(sum(shared(spent)) / RANKS)
        for way in ("gather", "stream"):
            dist.barrier()
            times[way].append(max(shared(seconds(lambda way=way: together(way)))))
        if not turn:
            for way in ("gather", "stream"):
                pairs = zip(results["one"], results[way], strict=True)
                equal = shared(all(torch.equal(shard(a, layout), b) for a, b in pairs))
                if rank == 0:
                    print(f"{way}: the bits of one process: {all(equal)}", flush=True)
    if rank == 0:
        for way in ("gather", "stream"):
            ratios = sorted(a / b for a, b in zip(times["one"][1:], times[way][1:], strict=True))
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            print(f"{way}: {statistics.median(ratios):.2f} times as fast as one process ({spread})")
        print(f"one process: {statistics.median(times['one'][1:]):.3f} s of processor time")
    dist.destroy_process_group()


def shared(own: Any) -> list[Any]:
    """What all processes have."""
    found: list[Any] = [None] * RANKS
    dist.all_gather_object(found, own)
    return found


def main() -> None:
    """Start both processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--unit", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gradients", action="store_true")
    with tempfile.TemporaryDirectory() as folder:
        spawn(measure, (folder, parser.parse_args()), nprocs=RANKS)


if __name__ == "__main__":
    main()
