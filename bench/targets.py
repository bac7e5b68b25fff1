"""The promises of speed, accuracy and size, each measured and marked PASS or MISS.

    python bench/targets.py [--only NAME ...] [--json]

Everything that is compared runs in one process, in turns, and the least time counts (`clearhead.cli.bench`). Needs
PyTorch for the comparisons with it. A machine shared with others moves single figures by several percent; ratios less.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from clearhead import attention, self_attention
from clearhead.cli.bench import measure, race
from clearhead.machine.peak import Peak

LONG = ((1, 8, 2048, 64), (1, 4, 4096, 64), (1, 1, 16384, 64), (1, 4, 4096, 128))
SHORT = ((1, 12, 128, 64), (8, 8, 256, 64), (1, 8, 512, 64), (1, 12, 197, 64), (1, 8, 1000, 64))
AVX2 = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 4, 4096, 128))
SECONDS = 5.0


@dataclass(frozen=True)
class Row:
    """One promise: `required` is a bound from below where `more` is better, else from above."""

    what: str
    required: float
    measured: float
    unit: str
    more: bool = True

    @property
    def kept(self) -> bool:
        """Whether the measurement keeps the promise."""
        return self.measured >= self.required if self.more else self.measured <= self.required

    def __str__(self) -> str:
        sign = "≥" if self.more else "≤"
        mark = "PASS" if self.kept else "MISS"
        return f"{mark}  {self.what:<58} {sign} {self.required:<6g} {self.measured:>8.3g} {self.unit}"


def forward() -> Iterator[Row]:
    """float32 against the peak and PyTorch, with errors against float64."""
    for shapes, of_peak, faster in ((LONG, 0.85, 2.5), (SHORT, 0.72, 3.0)):
        for shape in shapes:
            result = measure(shape, seconds=SECONDS, against_numpy=False)
            yield Row(
                f"{shape} float32, {result.gflops:.0f} GF/s",
                0.6 if shape[2] == 197 else of_peak,
                result.of_peak,
                "of peak",
            )
            if result.torch_gflops and result.torch_error:
                yield Row(f"{shape} against torch", faster, result.gflops / result.torch_gflops, "×")
                yield Row(
                    f"{shape} mean error against torch's", 1.0, result.error.mean / result.torch_error.mean, "×", False
                )
                yield Row(
                    f"{shape} max error against torch's", 1.5, result.error.max / result.torch_error.max, "×", False
                )


def double() -> Iterator[Row]:
    """float64 against its peak."""
    result = measure((1, 4, 2048, 64), "float64", seconds=SECONDS, against_numpy=False)
    yield Row(f"(1, 4, 2048, 64) float64, {result.gflops:.0f} GF/s", 0.75, result.of_peak, "of peak")


def avx2() -> Iterator[Row]:
    """AVX2 forced, in a process of its own, PyTorch kept to AVX2 as well."""
    code = (
        "import json; from clearhead.cli.bench import measure\n"
        f"print(json.dumps([measure(s, seconds={SECONDS}, against_numpy=False).as_dict() for s in {AVX2}]))"
    )
    results = json.loads(fresh(code, CLEARHEAD_ISA="avx2", ATEN_CPU_CAPABILITY="avx2"))
    for result in results:
        shape = tuple(result["shape"])
        yield Row(f"{shape} AVX2, {result['gflops']:.0f} GF/s", 0.8, result["of_peak"], "of AVX2 peak")
        if result["vs_torch"]:
            yield Row(f"{shape} AVX2 against torch's AVX2", 1.4, result["vs_torch"], "×")


def threads() -> Iterator[Row]:
    """Two threads against one."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 8, 2048, 64)).astype(np.float32)
    out = np.empty_like(q)
    contenders: dict[str, Callable[[], object]] = {
        str(n): (lambda n=n: attention(q, k, v, out=out, threads=n)) for n in (1, 2)
    }
    best, _ = race(contenders, Peak("float32"), SECONDS)
    yield Row("(1, 8, 2048, 64) two threads against one", 1.85, best["1"] / best["2"], "×")


def tiny() -> Iterator[Row]:
    """What a call costs when there is nothing to compute."""
    x = np.random.default_rng(0).standard_normal((1, 1, 16, 64)).astype(np.float32)
    best = float("inf")
    for _ in range(300):
        start = time.perf_counter()
        for _ in range(100):
            attention(x, x, x)
        best = min(best, (time.perf_counter() - start) / 100)
    yield Row("(1, 1, 16, 64) a tiny call, its work included", 12, best * 1e6, "µs", False)


def memory() -> Iterator[Row]:
    """What a call allocates beside its output."""
    from clearhead.machine.threads import spare

    x = np.random.default_rng(0).standard_normal((1, 1, 16384, 64)).astype(np.float32)
    out = np.empty_like(x)
    self_attention(x[:, :, :8])
    tracemalloc.start()
    self_attention(x, out=out, threads=1)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    yield Row("(1, 1, 16384, 64) memory beside the output", 2, max(allocated, spare.memory.size) / 2**20, "MiB", False)


def start() -> Iterator[Row]:
    """Fresh processes: import, a kernel never seen before, a kernel found on disk. The least of several."""
    call = "import time, numpy as np; t = time.perf_counter(); import clearhead; i = time.perf_counter(); "
    call += "clearhead.self_attention(np.ones((4, 8), np.float32)); e = time.perf_counter(); print(i - t, e - i, e - t)"
    with tempfile.TemporaryDirectory() as place:
        cold = min(float(fresh(call, CLEARHEAD_CACHE="0").split()[1]) for _ in range(5))
        fresh(call, CLEARHEAD_CACHE_DIR=place)
        warm = [tuple(map(float, fresh(call, CLEARHEAD_CACHE_DIR=place).split())) for _ in range(7)]
    alone = "import time; t = time.perf_counter(); import clearhead; print(time.perf_counter() - t)"
    yield Row("first call, kernel never seen before", 0.6, cold, "s", False)
    yield Row("import and first call after numpy, kernel on disk", 60, 1e3 * min(w[2] for w in warm), "ms", False)
    yield Row("import clearhead, numpy included", 150, 1e3 * min(float(fresh(alone)) for _ in range(7)), "ms", False)


def fresh(code: str, **environment: str) -> str:
    """What a new Python prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout  # noqa: S603


PARTS = {part.__name__: part for part in (forward, double, avx2, threads, tiny, memory, start)}


def main() -> int:
    """Measure the parts asked for; the exit code is the number of promises missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", action="store_true", help="write it for programs")
    options = parser.parse_args()
    rows = []
    for name in options.only:
        for row in PARTS[name]():
            rows.append(row)
            if not options.json:
                print(row, flush=True)
    if options.json:
        print(json.dumps([{**asdict(row), "kept": row.kept} for row in rows], indent=2))
    return sum(not row.kept for row in rows)


if __name__ == "__main__":
    sys.exit(main())
