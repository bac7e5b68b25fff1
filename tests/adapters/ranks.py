"""Processes that share a sequence: started once, then sent one function after the other.

Forked from a process that has imported torch and used it for nothing (a fork of one with torch's threads hangs), joined
by a file, so that no port is taken.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds until a test gives up on a worker


class Ranks:
    """Workers of one torch.distributed job, with groups of the first two, three … of them and others asked for."""

    def __init__(self, count: int, folder: Path, groups: Sequence[tuple[int, ...]] = ()) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["clearhead.adapters.torch.distributed", "torch.distributed"])
        members = [*(tuple(range(size)) for size in range(2, count + 1)), *groups]
        self.processes, self.ends = [], []
        for rank in range(count):
            own, theirs = context.Pipe()
            arguments = (rank, count, str(folder / "store"), members, theirs)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.ends.append(own)

    def begin(self, function: Callable[..., Any], *arguments: Any, ranks: Sequence[int]) -> None:
        """Call function(group, *arguments) on the ranks of a group."""
        for rank in ranks:
            self.ends[rank].send((function, tuple(ranks), arguments))

    def answer(self, rank: int) -> Any:
        """What a rank's call returned; an error that it raised, as a value."""
        assert self.ends[rank].poll(PATIENCE), f"rank {rank} does not answer"
        return self.ends[rank].recv()

    def run(self, function: Callable[..., Any], *arguments: Any, ranks: Sequence[int]) -> list[Any]:
        """The answers of all ranks of a group."""
        self.begin(function, *arguments, ranks=ranks)
        return [self.answer(rank) for rank in ranks]

    def close(self) -> None:
        """End all processes, stopped ones too."""
        for end in self.ends:
            with suppress(OSError):
                end.send(None)
        for process in self.processes:
            process.join(0.5)
            process.kill()
            process.join()


def work(rank: int, count: int, store: str, members: Any, end: Any) -> None:
    """A worker: join the others, then do what is sent."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    joined = dist.FileStore(store, count)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=joined, rank=rank, world_size=count)
    groups = {ranks: dist.new_group(list(ranks)) for ranks in members}
    while (asked := end.recv()) is not None:
        function, ranks, arguments = asked
        try:
            end.send(function(groups[ranks], *arguments))
        except Exception as error:
            end.send(error)
