"""Problems for hypothesis: lengths at the borders of tiles and blocks; strides and values that have hurt others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from clearhead import causal, full

DTYPES = st.sampled_from([np.float32, np.float64])
BORDERS = sorted(
    {max(1, border + step) for border in (1, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256) for step in (-1, 0, 1)}
)
LENGTHS = st.one_of(st.sampled_from(BORDERS), st.integers(1, 300))
DIMS = st.one_of(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 80]), st.integers(1, 70))
LAYOUTS = st.sampled_from(["plain", "transposed", "reversed", "every_other", "misaligned", "same_row", "read_only"])
KINDS = st.sampled_from(["normal", "large", "tiny", "equal", "zeros", "orthogonal", "subnormal", "huge"])


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers (or, for "same_row", one row's for all) in another memory layout."""
    match layout:
        case "transposed":
            return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
        case "reversed":
            return np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]
        case "every_other":
            wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
            wide[..., ::2] = x
            return wide[..., ::2]
        case "misaligned":
            raw = np.zeros(x.nbytes + 1, np.uint8)
            view = raw[1:].view(x.dtype).reshape(x.shape)
            view[...] = x
            return view
        case "same_row":
            return np.broadcast_to(x[..., :1, :], x.shape)
        case "read_only":
            x = x.copy()
            x.flags.writeable = False
    return x


def values(rng: np.random.Generator, shape: tuple[int, ...], kind: str, dtype: Any) -> np.ndarray:
    """Numbers of one kind."""
    x = rng.standard_normal(shape)
    match kind:
        case "large":
            x *= 30
        case "tiny":
            x *= 1e-6
        case "equal":
            x[...] = 1.5
        case "zeros":
            x = np.copysign(0.0, x)
        case "orthogonal":
            x = np.zeros(shape)
            x[..., np.arange(shape[-2]), np.arange(shape[-2]) % shape[-1]] = 2.0
        case "subnormal":
            x *= np.finfo(dtype).smallest_subnormal * 100
        case "huge":
            x *= 1e15
    return x.astype(dtype)


@dataclass(frozen=True)
class Case:
    """One call, printable so that a failure can be repeated."""

    dtype: Any
    heads: int
    key_heads: int
    queries: int
    keys: int
    dim: int
    value_dim: int
    kind: str
    layouts: tuple[str, str, str]
    mask: Any
    scale: float | None
    seed: int

    @property
    def work(self) -> int:
        """Multiplications and additions."""
        return self.heads * self.queries * self.keys * (self.dim + self.value_dim)

    @property
    def takes_fractions(self) -> bool:
        """Whether products are so small that the definition adds them by fractions, one by one: thousands a second."""
        return self.kind == "subnormal" and self.dtype == np.float64

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The call's q, k and v."""
        rng = np.random.default_rng(self.seed)
        shapes = (
            (self.heads, self.queries, self.dim),
            (self.key_heads, self.keys, self.dim),
            (self.key_heads, self.keys, self.value_dim),
        )
        return tuple(
            laid_out(values(rng, shape, self.kind, self.dtype), layout)
            for shape, layout in zip(shapes, self.layouts, strict=True)
        )


@st.composite
def cases(draw: st.DrawFn, kinds: st.SearchStrategy[str] = KINDS, lengths: st.SearchStrategy[int] = LENGTHS) -> Case:
    """Any call the interface allows."""
    key_heads = draw(st.sampled_from([1, 2]))
    heads = key_heads * draw(st.sampled_from([1, 2, 3]))
    queries = draw(lengths)
    mask = draw(st.sampled_from([causal(), causal(align="end"), causal(align="start"), full()]))
    keys = queries if mask == causal() else draw(lengths)
    case = Case(
        draw(DTYPES), heads, key_heads, queries, keys, draw(DIMS), draw(DIMS), draw(kinds),
        (draw(LAYOUTS), draw(LAYOUTS), draw(LAYOUTS)), mask, draw(st.sampled_from([None, 1.0, 0.3, -1.0])),
        draw(st.integers(0, 2**32 - 1)),
    )  # fmt: skip
    assume(not case.takes_fractions or case.work < 100_000)
    return case
