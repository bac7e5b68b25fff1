"""What a process holds, as Linux tells it, and whether it grows.

Memory is what the process alone has (anonymous pages): its heap, its arrays, its code; files that it maps do not count.
"""

import ctypes
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MOST_GROWN = 8 << 20  # bytes that memory may seem to have grown by, over a whole run


@dataclass(frozen=True)
class Held:
    """What processes and folders hold at one moment, when nothing is under way."""

    memory: dict[str, int]  # bytes, by process
    counts: dict[str, int]  # of open files, threads, children, files


def held(processes: dict[str, int], folders: dict[str, Path]) -> Held:
    """Look at some processes and folders."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or what the allocator keeps for later would count
    counts = {}
    for name, pid in processes.items():
        counts[f"open files of {name}"] = len(os.listdir(f"/proc/{pid}/fd"))
        counts[f"threads of {name}"] = len(os.listdir(f"/proc/{pid}/task"))
        text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
        counts[f"children of {name}"] = len(text.split())
    for name, folder in folders.items():
        counts[f"files in {name}"] = sum(len(files) for _, _, files in os.walk(folder))
    return Held({name: anonymous(pid) for name, pid in processes.items()}, counts)


def anonymous(pid: int) -> int:
    """Bytes of a process that no file backs."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def slope(times: Sequence[float], sizes: Sequence[float]) -> float:
    """The median slope of all pairs (Theil and Sen), which single outliers do not move."""
    x, y = np.asarray(times, float), np.asarray(sizes, float)
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i]))) if len(i) else 0.0


def faults(times: Sequence[float], seen: Sequence[Held], pools: dict[str, int]) -> list[str]:
    """What grew between the first and the last look: memory by its slope, everything else by any count.

    `pools` says by how much a count may differ, as threads do that are started when several questions come at once.
    """
    found = []
    for name in seen[0].memory:
        rate = slope(times, [one.memory[name] for one in seen])
        grown = rate * (times[-1] - times[0])
        if grown > MOST_GROWN:
            found.append(f"the memory of {name} grows by {grown / (1 << 20):.1f} MiB in {times[-1] - times[0]:.0f} s")
    for name, before in seen[0].counts.items():
        after = seen[-1].counts[name]
        if after > before + pools.get(name, 0):
            found.append(f"{name}: {after} now, {before} after the warm-up")
    return found
