"""Attention as users call it: arrays + rules → Problem → plan → kernel → arrays.

Decides what is prepared once and what is done in every call. Checks are left to `problem`, code to `machine` and
`kernels`, meaning to `definition`.
"""

import ctypes
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead import debug
from clearhead.definition.canonical import BLOCK
from clearhead.errors import InputError, ShapeError
from clearhead.kernels.call import AXIS, FIELDS
from clearhead.kernels.state import ROWS
from clearhead.kernels.tiles import DIM_STEP, ELEMENTS, tile_for
from clearhead.machine import threads as machine_threads
from clearhead.machine.compile import Kernel, Plan, kernels
from clearhead.machine.target import target
from clearhead.problem import Array, Problem, as_array, problem
from clearhead.rules.masks import Mask, causal

CAUSAL = causal()
ADDRESSES = tuple(FIELDS.index(name) for name in ("query", "key", "value", "output", "lse"))


@dataclass(frozen=True)
class Attended:
    """What attention gives: `output` (..., queries, value_dim) and `lse` (..., queries).

    `lse` is the natural logarithm of each query's Σ exp(score), −∞ where it sees nothing; with it, parts computed over
    different keys can be joined by `merge`.
    """

    output: Array
    lse: Array


@dataclass(frozen=True)
class Prepared:
    """Everything about a call that depends on its problem alone."""

    problem: Problem
    kernel: Kernel
    template: bytes  # the call's table without addresses
    scratch_size: int
    most_threads: int  # more would not be worth waking

    @property
    def table_type(self) -> type["ctypes.Array[ctypes.c_int64]"]:
        """The call's table as ctypes sees it."""
        return ctypes.c_int64 * (len(self.template) // 8)


def self_attention(x: npt.ArrayLike, *, threads: int | None = None, out: Array | None = None) -> Array:
    """Let each item of x look at itself and the items before it: the textbook's first approach, unscaled.

    x has shape (..., length, dim), float32 or float64, any strides; the result has its shape and dtype. `threads`
    bounds how many threads work (default: CLEARHEAD_THREADS, else every core), `out` receives the result. Raises
    ShapeError, DtypeError or InputError. Definition: `clearhead.definition.textbook.self_attention`.

    >>> import numpy as np
    >>> self_attention(np.array([[0.0], [1.0]])).round(3)
    array([[0.   ],
           [0.731]])
    """
    array = as_array(x, "x")
    return run(array, array, array, CAUSAL, 1.0, threads, out, False)[0]


def attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    mask: Mask = CAUSAL,
    scale: float | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Let each query gather the values whose keys it may see, weighted by softmax of scale · q·k.

    Shapes: q (..., n, d), k (..., m, d), v (..., m, dv); the result is (..., n, dv). Leading axes broadcast as in numpy,
    except that q may have a multiple of the heads (axis −3) of k and v: then consecutive query heads share one key head
    (Ainslie et al. 2023). All float32 or all float64, any strides. `mask` is `causal()` or `full()`, `scale` defaults to
    1/√d (Vaswani et al. 2017), `threads` bounds the threads, `out` receives the result. Hidden keys and values are never
    touched; a query that sees nothing gets 0. Raises ShapeError, DtypeError or InputError.
    Definition: `clearhead.definition.textbook.attention`.

    >>> import numpy as np
    >>> x = np.eye(2)
    >>> attention(x, x, x, scale=1.0).round(3)
    array([[1.   , 0.   ],
           [0.269, 0.731]])
    """
    return run(as_array(q, "q"), as_array(k, "k"), as_array(v, "v"), mask, scale, threads, out, False)[0]


def attend(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    mask: Mask = CAUSAL,
    scale: float | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Attended:
    """`attention`, and with the output each query's log-sum-exp of scores.

    >>> import numpy as np
    >>> done = attend(np.zeros((2, 1)), np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    >>> done.output.tolist(), done.lse.round(3).tolist()
    ([[1.0], [2.0]], [0.0, 0.693])
    """
    return Attended(*run(as_array(q, "q"), as_array(k, "k"), as_array(v, "v"), mask, scale, threads, out, True))


def merge(a: Attended, b: Attended) -> Attended:
    """Join attention of the same queries over two disjoint sets of keys, as if over both at once.

    Shapes and dtypes of a and b must be equal, else ShapeError; parts that saw nothing change nothing. Source: Milakov &
    Gimelshein 2018, section 3.1.

    >>> import numpy as np
    >>> from clearhead import full
    >>> q, k, v = np.ones((1, 2)), np.arange(8.0).reshape(4, 2), np.arange(4.0)[:, None]
    >>> halves = [attend(q, k[s], v[s], mask=full()) for s in (slice(0, 2), slice(2, 4))]
    >>> np.allclose(merge(*halves).output, attention(q, k, v, mask=full()))
    True
    """
    if a.output.shape != b.output.shape or a.output.dtype != b.output.dtype or a.lse.shape != b.lse.shape:
        raise ShapeError(
            f"parts of shapes {a.output.shape} ({a.output.dtype}) and {b.output.shape} ({b.output.dtype}) do not belong "
            "to the same queries: merge results of equal shape and dtype."
        )
    top = np.maximum(a.lse, b.lse)
    finite_top = np.where(np.isneginf(top), a.lse.dtype.type(0), top)
    shares = [np.exp(part.lse - finite_top) for part in (a, b)]
    total = shares[0] + shares[1]
    share = np.divide(1, total, where=total != 0, out=np.zeros_like(total))
    # A part that saw nothing has weight 0, and its output is 0 by definition: no 0 × ∞ can arise from it.
    output = (a.output * shares[0][..., None] + b.output * shares[1][..., None]) * share[..., None]
    with np.errstate(divide="ignore"):
        return Attended(output, finite_top + np.log(total))


def kernel_for(asked: Problem) -> Kernel:
    """The compiled kernel that a problem runs on: its `.plan`, `.ir` and `.asm` may be read.

    >>> import numpy as np
    >>> from clearhead import causal, problem
    >>> x = np.zeros((4, 8), np.float32)
    >>> kernel_for(problem(x, x, x, mask=causal())).plan.kernel
    'forward'
    """
    return kernels.get(plan_for(asked))


def plan_for(asked: Problem) -> Plan:
    """Which kernel, with which tile, for the target in force. Lengths and dims change no code."""
    place = target()
    return Plan("forward", tile_for(ELEMENTS[asked.dtype], place.vector_bits, place.registers), place)


prepared: dict[tuple[Any, ...], Prepared] = {}
MOST_PREPARED = 1024


def run(
    q: Array, k: Array, v: Array, mask: Mask, scale: float | None, threads: int | None, out: Array | None, wants_lse: bool
) -> tuple[Array, Array]:
    """One call; the second array is empty unless wanted."""
    out_layout = None if out is None else (type(out), getattr(out, "shape", None), getattr(out, "strides", None))
    key = (q.shape, q.strides, q.dtype, k.shape, k.strides, k.dtype, v.shape, v.strides, v.dtype, mask, scale, out_layout)
    try:
        ready = prepared.get(key)
    except TypeError:  # an unhashable mask or scale, which `problem` explains
        ready = None
    if ready is None or out is not None:  # an `out` may overlap anew in every call
        asked = problem(q, k, v, mask=mask, scale=scale, out=out)
        ready = ready or prepare(asked, key)
    asked = ready.problem
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads={threads!r} is not a number of threads: use 1, 2, 3 … or None for the default.")
    output = np.empty(asked.output_shape, q.dtype) if out is None else out
    lse = np.empty(asked.output_shape[:-1] if wants_lse else 0, q.dtype)
    if output.size == 0 and lse.size == 0:
        return output, lse
    table = ready.table_type.from_buffer_copy(ready.template)
    for at, array in zip(ADDRESSES, (q, k, v, output), strict=False):
        table[at] = array.__array_interface__["data"][0]
    if wants_lse:
        table[ADDRESSES[-1]] = lse.__array_interface__["data"][0]
    count = 1 if ready.most_threads == 1 else min(ready.most_threads, threads or machine_threads.allowed())
    machine_threads.run(
        ready.kernel.entry, table, ready.scratch_size, count, ready.kernel.plan.target.isa, (q, k, v, output, lse)
    )
    return output, lse


def prepare(asked: Problem, key: tuple[Any, ...]) -> Prepared:
    """Find the kernel for a problem and lay out its table and scratch memory."""
    kernel = kernel_for(asked)
    tile = kernel.plan.tile
    tasks = asked.heads * -(-asked.queries // tile.queries)
    padded = -(-asked.value_dim // DIM_STEP) * DIM_STEP
    room = {
        "at_scores": (BLOCK + max(tile.keys)) * tile.row,
        "at_softmax": ROWS * tile.row,
        "at_query": asked.query_dim * tile.row,
        "at_output": tile.queries * padded * tile.element.bytes,
        "at_total": tile.queries * padded * tile.element.bytes,
        "at_keys": BLOCK * asked.query_dim * tile.element.bytes,
        "at_values": BLOCK * padded * tile.element.bytes,
    }
    places, size = {}, 0
    for name, needed in room.items():
        places[name] = size
        size += -(-needed // 64) * 64
    operands = {"query": asked.query, "key": asked.key, "value": asked.value, "output": asked.output}
    fields = {
        **dict.fromkeys(("next_task", *operands, "lse"), 0),
        "tasks": tasks,
        "heads": asked.heads,
        "queries": asked.queries,
        "keys": asked.keys,
        "query_dim": asked.query_dim,
        "value_dim": asked.value_dim,
        "reach": asked.reach,
        "scale": struct.unpack("q", struct.pack("d", asked.scale))[0],
        **{f"{name}_row": operand.row for name, operand in operands.items()},
        **{f"{name}_element": operand.element for name, operand in operands.items()},
        **places,
        "axes": len(asked.axes),
    }
    numbers = [fields[name] for name in FIELDS]
    for axis, size_ in enumerate(asked.axes):
        numbers += [size_, *(operands[name].lead[axis] for name in AXIS[1:])]
    work = asked.pairs * (asked.query_dim + asked.value_dim)
    ready = Prepared(
        asked,
        kernel,
        struct.pack(f"{len(numbers)}q", *numbers),
        size,
        max(1, min(tasks, work // machine_threads.WORTH_A_THREAD)),
    )
    if len(prepared) >= MOST_PREPARED:
        prepared.clear()
    prepared[key] = ready
    debug.say(1, f"{kernel.plan.kernel} {kernel.plan.tile.element.name} {kernel.plan.target.isa} for {asked.lead} × {asked.queries}×{asked.keys}")
    debug.say(3, f"{kernel.plan} {asked}")
    return ready

