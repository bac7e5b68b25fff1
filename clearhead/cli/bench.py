"""`clearhead bench`: attention's speed here, compared with the processor's limit, numpy and, if installed, PyTorch.

Responsible for a causal forward of one shape, its contenders and its answer by the definition; `race` takes the times.
`python -m bench`, in the project's repository, measures everything else beside every peer.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.cli.race import Clock, Contender, Deviation, Exact, checked, race
from clearhead.definition import textbook
from clearhead.errors import InputError, MachineError
from clearhead.functional import attention
from clearhead.machine.peak import Peak
from clearhead.rules.masks import causal

Shape = tuple[int, int, int, int]

DEFAULT_SHAPES: tuple[Shape, ...] = ((1, 12, 128, 64), (1, 8, 512, 64), (1, 8, 2048, 64), (1, 4, 4096, 128))
NUMPY_BYTES = 1 << 30  # numpy is left out where its matrix of scores would be larger
SAMPLED_ROWS = 64
FOOTNOTE = (
    "Shapes: batch,heads,length,dim; 4·B·H·D·L(L+1)/2 operations of a causal forward by the public calls. All in one "
    "process, in turns, least time of all rounds (processor time with one thread; wall time for numpy, which "
    "chooses its threads); peak: fused multiply-adds in the same rounds; error: mean, against float64. Only ratios "
    "carry over to other machines."
)


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
    q, k, v = operands(shape, dtype)
    left_out = []
    contenders = {"ours": Contender(lambda: attention(q, k, v, threads=threads))}
    if not against_numpy:
        left_out.append("numpy: not requested")
    elif q.nbytes // q.shape[-1] * q.shape[-2] <= NUMPY_BYTES:
        contenders["numpy"] = Contender(lambda: plain_numpy(q, k, v))
    else:
        left_out.append(f"numpy: its scores would take more than {NUMPY_BYTES >> 30} GiB")
    torch_call = torch_attention(q, k, v, threads)
    if torch_call is None:
        left_out.append("torch: not installed")
    else:
        contenders["torch"] = Contender(torch_call)
    exact, errors = causal_exact(q, k, v), {}
    for name, contender in list(contenders.items()):
        try:
            errors[name] = checked(contender, exact)
        except MachineError as error:
            if name == "ours":
                raise
            left_out.append(f"{name}: {error}")
            del contenders[name]
    peak = Peak(dtype)
    times = race({name: contender.call for name, contender in contenders.items()}, seconds, peak=peak)
    clock: dict[str, Clock] = dict.fromkeys(times, "processor" if threads == 1 else "wall") | {"numpy": "wall"}
    speed = {name: operations(shape) / taken.least(clock[name]) / 1e9 for name, taken in times.items()}
    return Result(
        shape, dtype, threads,
        gflops=speed["ours"],
        peak=peak.best,
        numpy_gflops=speed.get("numpy"),
        torch_gflops=speed.get("torch"),
        error=errors["ours"],
        torch_error=errors.get("torch"),
        left_out=tuple(left_out),
    )  # fmt: skip


def operands(shape: Shape, dtype: str = "float32") -> tuple[Array, Array, Array]:
    """Standard normal q, k and v."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    return q, k, v


def operations(shape: Shape) -> float:
    """Multiplications and additions of a causal forward.

    >>> operations((1, 1, 2, 1))
    12.0
    """
    batch, heads, length, dim = shape
    return 4 * batch * heads * dim * length * (length + 1) / 2


def causal_exact(q: Array, k: Array, v: Array) -> Exact:
    """The definition's rows, some of them drawn, the first and the last always."""
    length = q.shape[-2]
    rows = np.unique(np.append(np.random.default_rng(1).integers(0, length, SAMPLED_ROWS), [0, length - 1]))
    return Exact(definition_rows(q, k, v, rows), lambda y: y[..., rows, :])


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
