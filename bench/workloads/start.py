"""Cold and warm starts: processor time of fresh processes, the least of several; and memory of one call."""

import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator

import numpy as np

from bench.result import ROOT
from bench.workload import Reading, at_most
from clearhead import self_attention
from clearhead.machine.threads import spare

FIRST = "import numpy as np; from time import process_time as now; t = now(); import clearhead; i = now(); "
FIRST += "clearhead.self_attention(np.ones((4, 8), np.float32)); e = now(); print(i - t, e - i, e - t)"
PEERS = {
    "import torch, first call": "import torch; x = torch.ones(1, 1, 4, 8); "
    "torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)",
    "import jax, first call": "import jax; x = jax.numpy.ones((1, 4, 1, 8)); "
    "jax.nn.dot_product_attention(x, x, x, is_causal=True).block_until_ready()",
    "import onnxruntime": "import onnxruntime",
    "import openvino": "import openvino",
}
CLASSES = "Python spends a third of clearhead's import making the methods of 66 dataclasses"
NEVER, WARM, IMPORT = "first call, kernel never seen", "import clearhead, first call", "import numpy and clearhead"


def workloads(*, quick: bool) -> Iterator[Reading]:
    """Starts, then memory."""
    times = 1 if quick else 5
    yield Reading(
        "from nothing to the first answer", lambda: starts(times), "ms",
        (at_most(NEVER, 600.0, "ms"), at_most(WARM, 60.0, "ms"), at_most(IMPORT, 150.0, "ms")), CLASSES,
    )  # fmt: skip
    length = 1024 if quick else 16384
    name = f"(1, 1, {length}, 64)"
    yield Reading("memory beside the output", lambda: {name: memory(length)}, "MiB", (at_most(name, 2.0, "MiB"),))


def starts(times: int) -> dict[str, float]:
    """Milliseconds of processor time of each start, beside peers' that are installed."""
    with tempfile.TemporaryDirectory() as folder:
        cold = min(float(fresh(FIRST, CLEARHEAD_CACHE="0").split()[1]) for _ in range(times))
        fresh(FIRST, CLEARHEAD_CACHE_DIR=folder)
        warm = min(float(fresh(FIRST, CLEARHEAD_CACHE_DIR=folder).split()[2]) for _ in range(times))
    found = {NEVER: cold, WARM: warm, IMPORT: min(imported("import clearhead") for _ in range(times))}
    for name, code in PEERS.items():
        try:
            found[name] = min(imported(code) for _ in range(min(times, 2)))
        except subprocess.CalledProcessError:
            continue  # not installed
    return {name: 1e3 * seconds for name, seconds in found.items()}


def imported(code: str) -> float:
    """Seconds of some lines in a fresh Python."""
    return float(fresh(f"from time import process_time as now; t = now(); {code}; print(now() - t)"))


def fresh(code: str, **environment: str) -> str:
    """What a new Python prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(  # noqa: S603
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environment},
        cwd=ROOT,
    ).stdout


def memory(length: int) -> float:
    """MiB that a call allocates beside its output, the thread's scratch memory included."""
    x = np.random.default_rng(0).standard_normal((1, 1, length, 64)).astype(np.float32)
    out = np.empty_like(x)
    self_attention(x[:, :, :8])
    tracemalloc.start()
    self_attention(x, out=out, threads=1)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return max(allocated, spare.memory.size) / 2**20
