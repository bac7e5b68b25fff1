"""Attention over array files, a few heads at a time.

Decides what a file's arrays stand for, which heads are computed together, and which arrays the new file
holds; leaves the files to `clearhead.files` and the attention to the kernel. It never holds more than a step.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.definition import textbook
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem, problem_of
from clearhead.errors import ClearheadError, FileError, InputError
from clearhead.files import Spec, new_file, open_arrays, release
from clearhead.functional import attend
from clearhead.rules.masks import Mask, causal
from clearhead.rules.named import named_score, rule_from_file
from clearhead.rules.scores import Score

STEP = 1 << 25  # bytes of all operands together that one step may touch, unless a single head needs more


@dataclass(frozen=True)
class Options:
    """What to compute beside the output, and how; `rows` are the positions whose weights are wanted."""

    mask: Mask = field(default_factory=causal)
    scores: tuple[str, ...] = ()  # score rules as they are typed, in order; then a file's functions
    functions: tuple[str, ...] = ()
    scale: float | None = None
    threads: int | None = None
    lse: bool = False
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run, checked and ready: its arrays, the problem they pose, and what the new file will hold."""

    source: Path
    names: str
    arrays: tuple[Array, Array, Array]
    problem: Problem
    rules: tuple[Score, ...]
    options: Options
    specs: dict[str, Spec]
    notes: tuple[str, ...]

    @property
    def heads(self) -> int:
        """How many heads there are, over all leading axes."""
        return math.prod(self.problem.lead)


@dataclass(frozen=True)
class Report:
    """What a run did, how fast; as text, the line that ends it."""

    job: Job
    target: Path
    seconds: float

    @property
    def flops(self) -> int:
        """Multiplications and additions of the two products, over the pairs that are seen."""
        return 2 * self.job.problem.pairs * (self.job.problem.query_dim + self.job.problem.value_dim)

    def __str__(self) -> str:
        problem, options = self.job.problem, self.job.options
        made = ", ".join(f"{name} {spec.shape}" for name, spec in self.job.specs.items())
        return (
            f"{self.target}: {made} in {problem.dtype} from {self.job.names}, {options.mask}, "
            f"scale {problem.scale:.6g}; {self.seconds:.3g} s, {self.flops / self.seconds / 1e9:.3g} GF/s"
        )


def job_for(source: str | os.PathLike[str], options: Options) -> Job:
    """Open a file that holds x, or q, k and v, and check everything before anything is computed.

    x attends to itself with scale 1 and q to k with 1/√d, unless `options.scale` says otherwise. Raises
    FileError, DtypeError, ShapeError or InputError, each with the file's name.
    """
    file = open_arrays(source)
    names = _operand_names(file.path, set(file.members))
    arrays = tuple(file[name] for name in names) * (3 // len(names))
    q, k, v = arrays
    scale = 1.0 if names == ("x",) and options.scale is None else options.scale
    functions = [rule_from_file(text) for text in options.functions]  # whose errors name a file of their own
    try:
        heads = q.shape[-3] if q.ndim > 2 else 1
        rules = (*(named_score(text, heads) for text in options.scores), *functions)
        problem = problem_of(Operands(q, k, v), Rules(options.mask, rules, scale=scale))
    except ClearheadError as e:
        where = f"{file.path}, whose x is q, k and v" if names == ("x",) else file.path
        raise type(e)(f"{where}: {e}") from None
    notes = tuple(
        f"{name} in {file.path} is compressed, so it was decompressed into memory ({array.nbytes:,} bytes): "
        "numpy.savez or .safetensors would let it be streamed."
        for name, array in zip(names, arrays, strict=False)
        if name in file.compressed
    )
    shapes = " and ".join(f"{name} {array.shape}" for name, array in zip(names, arrays, strict=False))
    return Job(file.path, shapes, (q, k, v), problem, rules, options, _specs(problem, options), notes)


def execute(
    job: Job,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    advance: Callable[[int], None] = lambda heads: None,
) -> Report:
    """Compute the plan into a new file; `advance` is told how many heads each step has finished.

    Whatever stops it leaves no file. Raises FileError where `target` exists (unless `force`), is the plan's
    own source, or cannot be written.
    """
    target = Path(target)
    same = False
    with suppress(OSError, ValueError):  # it is not there, or there cannot be such a file: `new_file` tells
        same = target.samefile(job.source)
    if same:
        raise FileError(f"{target} is the input itself: name another file for the output.")
    with new_file(target, job.specs, force=force) as outputs:
        start = perf_counter()
        _fill(job, outputs, advance)
        seconds = perf_counter() - start
    return Report(job, target, seconds)


def parse_rows(text: str) -> tuple[int, ...]:
    """Positions as they are typed.

    >>> parse_rows("0,5,-1")
    (0, 5, -1)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r} is no list of positions: write whole numbers, as in 0,5,-1.") from None


def _operand_names(path: Path, present: set[str]) -> tuple[str, ...]:
    wanted = [names for names in (("x",), ("q", "k", "v")) if present & set(names)]
    if len(wanted) == 1 and present >= set(wanted[0]):
        return wanted[0]
    some = ", ".join(sorted(present)[:5]) or "no array"
    more = f" and {len(present) - 5} more" if len(present) > 5 else ""
    raise FileError(f"{path} holds {some}{more}: name its arrays x, or q, k and v.")


def _specs(problem: Problem, options: Options) -> dict[str, Spec]:
    dtype = np.dtype(problem.dtype)
    specs = {"output": Spec(problem.output_shape, dtype)}
    if options.lse:
        specs["lse"] = Spec(problem.output_shape[:-1], dtype)
    if options.rows:
        for row in options.rows:
            if not -problem.queries <= row < problem.queries:
                raise InputError(f"row {row} is none of the {problem.queries} queries: count from 0, or back from -1.")
        specs["weights"] = Spec((*problem.lead, len(options.rows), problem.keys), dtype)
    return specs


def _fill(job: Job, outputs: dict[str, Array], advance: Callable[[int], None]) -> None:
    problem = job.problem
    if {"batch", "head"} & problem.rules.leaves:  # rules that ask for them must see all heads at once
        _step(job, job.arrays, outputs, ())
        advance(job.heads)
        return
    grid = problem.lead or (1,)
    q, k, v = (_with_heads(array, grid[:-1]) for array in job.arrays)
    parts = {name: array.reshape(grid + array.shape[len(problem.lead) :]) for name, array in outputs.items()}
    for outer, heads in _steps(grid, (q, k, v), job.specs):
        a, b, c = (_shared(array[outer], heads, grid[-1]) for array in (q, k, v))
        _step(job, (a, b, c), parts, (*outer, heads))
        release(*job.arrays, *outputs.values())
        advance(heads.stop - heads.start)


def _step(job: Job, arrays: tuple[Array, Array, Array], outputs: dict[str, Array], at: tuple[int | slice, ...]) -> None:
    """Some heads, into their place in the outputs."""
    options, (q, k, v) = job.options, arrays
    rules: dict[str, Any] = {"mask": options.mask, "score": job.rules, "scale": job.problem.scale}
    done = attend(q, k, v, **rules, threads=options.threads, out=outputs["output"][at])
    if options.lse:
        outputs["lse"][at] = done.lse
    if options.rows:
        outputs["weights"][at] = textbook.weights_of_rows(q, k, options.rows, **rules)


def _with_heads(array: Array, outer: tuple[int, ...]) -> Array:
    """The array as (*outer, its own heads, length, dim), with nothing copied."""
    array = array if array.ndim > 2 else array[None]
    return np.broadcast_to(array, (*outer, *array.shape[-3:]))


def _shared(array: Array, heads: slice, of: int) -> Array:
    """The heads of `array` that belong to the output's `heads`, where all of it serve `of` heads."""
    group = of // len(array)
    return array[heads.start // group : ceil_div(heads.stop, group)]


def _steps(
    grid: tuple[int, ...], arrays: tuple[Array, ...], specs: dict[str, Spec]
) -> Iterator[tuple[tuple[int, ...], slice]]:
    """Which heads go together: some of the last leading axis, never parts of two groups that share a key."""
    heads = grid[-1]
    if not math.prod(grid):
        return
    head_bytes = sum(math.prod(a.shape[-2:]) * a.itemsize for a in arrays)
    head_bytes += sum(spec.nbytes for spec in specs.values()) // math.prod(grid)
    groups = [heads // a.shape[-3] for a in arrays]
    size = max(min(heads, STEP // max(head_bytes, 1)), 1)
    while any(size % group and group % size for group in groups if group < heads):
        size -= 1
    for outer in np.ndindex(*grid[:-1]):
        for start in range(0, heads, size):
            yield outer, slice(start, min(start + size, heads))
