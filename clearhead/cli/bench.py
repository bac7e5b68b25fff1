"""`clearhead bench`: attention's speed here, compared with the processor's limit, numpy and, if installed, PyTorch.

Responsible for how times are taken: all contenders in one process, in turns, the least time of many rounds. On a
shared machine only the ratios are meaningful, because other load slows all contenders alike.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.errors import InputError
from clearhead.functional import attention
from clearhead.machine.peak import Peak
from clearhead.rules.masks import causal

Shape = tuple[int, int, int, int]

DEFAULT_SHAPES: tuple[Shape, ...] = ((1, 12, 128, 64), (1, 8, 512, 64), (1, 8, 2048, 64), (1, 4, 4096, 128))
NUMPY_BYTES = 1 << 30  # numpy is left out where its matrix of scores would be larger
SAMPLED_ROWS = 64
TURN_SECONDS = 5e-3  # that a contender runs before the next one
FOOTNOTE = (
    "Shapes: batch,heads,length,dim; 4·B·H·D·L(L+1)/2 operations of a causal forward by the public calls. All in one "
    "process, in turns, least time of all rounds; peak: fused multiply-adds in the same rounds; error: mean, against "
    "float64. Only ratios carry over to other machines."
)


@dataclass(frozen=True)
class Deviation:
    """Absolute error against the float64 definition over sampled rows."""

    mean: float
    max: float


@dataclass(frozen=True)
class Result:
    """The measurement of one shape; a contender that did not run is None, and `left_out` says why."""

    shape: Shape
    dtype: str
    threads: int
    gflops: float
    peak: float
    numpy_gflops: float | None
    torch_gflops: float | None
    error: Deviation
    torch_error: Deviation | None
    left_out: tuple[str, ...]

    @property
    def of_peak(self) -> float:
        """The speed as a share of the multiply-add peak of as many threads."""
        return self.gflops / (self.peak * self.threads)

    def ratio(self, other: float | None) -> float | None:
        """The speedup over another contender."""
        return None if other is None else self.gflops / other

    def as_dict(self) -> dict[str, Any]:
        """The result and its ratios as a dictionary, for JSON."""
        ratios = {
            "of_peak": self.of_peak,
            "vs_numpy": self.ratio(self.numpy_gflops),
            "vs_torch": self.ratio(self.torch_gflops),
        }
        return asdict(self) | ratios


def parse_shape(text: str) -> Shape:
    """Parse a shape given on the command line.

    >>> parse_shape("1,8,2048,64")
    (1, 8, 2048, 64)
    """
    parts = text.replace("x", ",").split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--shape {text} is not a shape: write batch,heads,length,dim, for instance 1,8,2048,64.")
    batch, heads, length, dim = map(int, parts)
    return batch, heads, length, dim


def measure(
    shape: Shape, dtype: str = "float32", *, threads: int = 1, seconds: float = 2.0, against_numpy: bool = True
) -> Result:
    """Time one shape for every contender that can run it; `against_numpy=False` skips numpy, which evicts all caches.

    >>> measure((1, 1, 16, 16), seconds=0.01).gflops > 0
    True
    """
    batch, heads, length, dim = shape
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    left_out = []
    contenders: dict[str, Callable[[], Any]] = {"ours": lambda: attention(q, k, v, threads=threads)}
    if not against_numpy:
        left_out.append("numpy: not requested")
    elif batch * heads * length * length * q.itemsize <= NUMPY_BYTES:
        contenders["numpy"] = lambda: plain_numpy(q, k, v)
    else:
        left_out.append(f"numpy: its scores would take more than {NUMPY_BYTES >> 30} GiB")
    torch_call = torch_attention(q, k, v, threads)
    if torch_call is None:
        left_out.append("torch: not installed")
    else:
        contenders["torch"] = torch_call
    best, peak = race(contenders, Peak(dtype), seconds)
    operations = 4 * batch * heads * dim * length * (length + 1) / 2 / 1e9
    rows = np.unique(np.append(rng.integers(0, length, SAMPLED_ROWS), [0, length - 1]))
    exact = definition_rows(q, k, v, rows)
    return Result(
        shape, dtype, threads,
        gflops=operations / best["ours"],
        peak=peak,
        numpy_gflops=operations / best["numpy"] if "numpy" in best else None,
        torch_gflops=operations / best["torch"] if "torch" in best else None,
        error=deviation(attention(q, k, v)[..., rows, :], exact),
        torch_error=deviation(torch_call().numpy()[..., rows, :], exact) if torch_call else None,
        left_out=tuple(left_out),
    )  # fmt: skip


def race(contenders: dict[str, Callable[[], Any]], peak: Peak, seconds: float) -> tuple[dict[str, float], float]:
    """Run the contenders in turns; returns each one's least time and the best peak of the same rounds."""
    best = dict.fromkeys(contenders, 1.0e9)
    for contender in contenders.values():
        contender()  # compiles and allocates
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        for name, contender in contenders.items() if rounds % 2 else reversed(contenders.items()):
            # The first run of a turn finds another contender's arrays in the caches; later runs find their own.
            for _ in range(max(2, min(20, int(TURN_SECONDS / best[name])))):
                start = time.perf_counter()
                contender()
                best[name] = min(best[name], time.perf_counter() - start)
        peak.measure()
        rounds += 1
    return best, peak.best


def plain_numpy(q: Array, k: Array, v: Array) -> Array:
    """Attention by whole matrices: scores, mask, softmax, product."""
    s = q @ np.swapaxes(k, -1, -2) * q.dtype.type(q.shape[-1] ** -0.5)
    s[..., ~np.tri(q.shape[-2], dtype=bool)] = -np.inf
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    y: Array = (e / e.sum(axis=-1, keepdims=True)) @ v
    return y


def torch_attention(q: Array, k: Array, v: Array, threads: int) -> Callable[[], Any] | None:
    """A call of PyTorch's attention on the same memory, or None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    query, key, value = (torch.from_numpy(x) for x in (q, k, v))
    attend = torch.nn.functional.scaled_dot_product_attention

    def call() -> Any:
        with torch.no_grad():
            return attend(query, key, value, is_causal=True)

    return call


def definition_rows(q: Array, k: Array, v: Array, rows: npt.NDArray[Any]) -> Array:
    """The definition's output in float64 for some rows."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    return textbook.weights_of_rows(q, k, rows, causal(), q.shape[-1] ** -0.5) @ v


def deviation(got: Array, exact: Array) -> Deviation:
    """Mean and maximum absolute error."""
    error = np.abs(got - exact)
    return Deviation(float(error.mean()), float(error.max()))


def results_table(results: list[Result]) -> Any:
    """The results as a rich table for the terminal."""
    from rich.box import SIMPLE
    from rich.table import Table

    grid = Table(caption=FOOTNOTE, caption_justify="left", box=SIMPLE, padding=0)
    for name in ("shape", "dtype", "threads", "GF/s", "of peak", "× numpy", "× torch", "error", "torch's"):
        grid.add_column(name, justify="left" if name == "shape" else "right", no_wrap=True)
    for r in results:
        theirs = f"{r.torch_error.mean:.1e}" if r.torch_error else "–"
        ratios = (ratio_text(r.ratio(other)) for other in (r.numpy_gflops, r.torch_gflops))
        shape, speed, share = ",".join(map(str, r.shape)), f"{r.gflops:.1f}", f"{r.of_peak:.2f}"
        grid.add_row(shape, r.dtype, str(r.threads), speed, share, *ratios, f"{r.error.mean:.1e}", theirs)
    return grid


def ratio_text(ratio: float | None) -> str:
    """A ratio, or a dash for a contender that did not run."""
    return "–" if ratio is None else f"{ratio:.1f}"
