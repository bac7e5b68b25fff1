"""`clearhead run`: attention over array files, a few heads at a time.

Responsible for the roles of a file's arrays, the heads computed in one step, and the arrays in the new file. Not for
reading and writing files, which `clearhead.files` does. Memory holds one step at a time.
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

STEP_BYTES = 1 << 25  # of all operands in one step, unless a single head needs more


@dataclass(frozen=True)
class Options:
    """The rules to compute with, and what to compute besides the output: `lse`, and the weights of `rows`."""

    mask: Mask = field(default_factory=causal)
    scores: tuple[str, ...] = ()  # score rules as typed, applied in order, before `functions`
    functions: tuple[str, ...] = ()
    scale: float | None = None
    threads: int | None = None
    lse: bool = False
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """A run that has been checked: its arrays, the problem they define, and the arrays of the new file."""

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
        """The number of heads, over all leading axes."""
        return math.prod(self.problem.lead)


@dataclass(frozen=True)
class Report:
    """What a run computed and its speed; as text, the line printed at the end."""

    job: Job
    target: Path
    seconds: float

    @property
    def flops(self) -> int:
        """Multiplications and additions of the two products, over the visible pairs."""
        return 2 * self.job.problem.pairs * (self.job.problem.query_dim + self.job.problem.value_dim)

    def __str__(self) -> str:
        problem, options = self.job.problem, self.job.options
        arrays = ", ".join(f"{name} {spec.shape}" for name, spec in self.job.specs.items())
        return (
            f"{self.target}: {arrays} in {problem.dtype} from {self.job.names}, {options.mask}, "
            f"scale {problem.scale:.6g}; {self.seconds:.3g} s, {self.flops / self.seconds / 1e9:.3g} GF/s"
        )


def job_for(source: str | os.PathLike[str], options: Options) -> Job:
    """Open a file that holds x, or q, k and v, and check everything before anything is computed.

    The default scale is 1 for x, which attends to itself, and 1/√d for q, k and v. Raises FileError, DtypeError,
    ShapeError or InputError, each with the file's name.
    """
    file = open_arrays(source)
    names = _operand_names(file.path, set(file.members))
    arrays = tuple(file[name] for name in names) * (3 // len(names))
    q, k, v = arrays
    scale = 1.0 if names == ("x",) and options.scale is None else options.scale
    functions = [rule_from_file(text) for text in options.functions]  # their errors name the function's file
    try:
        heads = q.shape[-3] if q.ndim > 2 else 1
        rules = (*(named_score(text, heads) for text in options.scores), *functions)
        problem = problem_of(Operands(q, k, v), Rules(options.mask, rules, scale=scale))
    except ClearheadError as e:
        origin = f"{file.path}, whose x is q, k and v" if names == ("x",) else file.path
        raise type(e)(f"{origin}: {e}") from None
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
    """Compute a job into a new file; `advance` receives the number of heads that each step finished.

    No file is left where the run stops early. Raises FileError where `target` exists (unless `force`), is the job's
    source, or cannot be written.
    """
    target = Path(target)
    same = False
    with suppress(OSError, ValueError):  # a missing file is fine, and `new_file` refuses an impossible name
        same = target.samefile(job.source)
    if same:
        raise FileError(f"{target} is the input itself: name another file for the output.")
    with new_file(target, job.specs, force=force) as outputs:
        start = perf_counter()
        _fill_outputs(job, outputs, advance)
        seconds = perf_counter() - start
    return Report(job, target, seconds)


def parse_rows(text: str) -> tuple[int, ...]:
    """Parse positions given on the command line.

    >>> parse_rows("0,5,-1")
    (0, 5, -1)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r} is not a list of positions: write whole numbers, as in 0,5,-1.") from None


def _operand_names(path: Path, present: set[str]) -> tuple[str, ...]:
    matching = [names for names in (("x",), ("q", "k", "v")) if present & set(names)]
    if len(matching) == 1 and present >= set(matching[0]):
        return matching[0]
    listed = ", ".join(sorted(present)[:5]) or "no array"
    more = f" and {len(present) - 5} more" if len(present) > 5 else ""
    raise FileError(f"{path} holds {listed}{more}: name its arrays x, or q, k and v.")


def _specs(problem: Problem, options: Options) -> dict[str, Spec]:
    dtype = np.dtype(problem.dtype)
    specs = {"output": Spec(problem.output_shape, dtype)}
    if options.lse:
        specs["lse"] = Spec(problem.output_shape[:-1], dtype)
    if options.rows:
        for row in options.rows:
            if not -problem.queries <= row < problem.queries:
                raise InputError(
                    f"row {row} is not one of the {problem.queries} queries: count from 0, or back from -1."
                )
        specs["weights"] = Spec((*problem.lead, len(options.rows), problem.keys), dtype)
    return specs


def _fill_outputs(job: Job, outputs: dict[str, Array], advance: Callable[[int], None]) -> None:
    problem = job.problem
    if {"batch", "head"} & problem.rules.leaves:  # a rule that uses batch or head needs all heads in one step
        _compute_heads(job, job.arrays, outputs, ())
        advance(job.heads)
        return
    grid = problem.lead or (1,)
    q, k, v = (_broadcast_heads(array, grid[:-1]) for array in job.arrays)
    parts = {name: array.reshape(grid + array.shape[len(problem.lead) :]) for name, array in outputs.items()}
    for outer, heads in _head_steps(grid, (q, k, v), job.specs):
        a, b, c = (_shared_heads(array[outer], heads, grid[-1]) for array in (q, k, v))
        _compute_heads(job, (a, b, c), parts, (*outer, heads))
        release(*job.arrays, *outputs.values())
        advance(heads.stop - heads.start)


def _compute_heads(
    job: Job, arrays: tuple[Array, Array, Array], outputs: dict[str, Array], at: tuple[int | slice, ...]
) -> None:
    """Compute some heads into `outputs[...][at]`."""
    options, (q, k, v) = job.options, arrays
    rules: dict[str, Any] = {"mask": options.mask, "score": job.rules, "scale": job.problem.scale}
    done = attend(q, k, v, **rules, threads=options.threads, out=outputs["output"][at])
    if options.lse:
        outputs["lse"][at] = done.lse
    if options.rows:
        outputs["weights"][at] = textbook.weights_of_rows(q, k, options.rows, **rules)


def _broadcast_heads(array: Array, outer: tuple[int, ...]) -> Array:
    """A view of the array as (*outer, its heads, length, dim), broadcast over `outer`."""
    array = array if array.ndim > 2 else array[None]
    return np.broadcast_to(array, (*outer, *array.shape[-3:]))


def _shared_heads(array: Array, heads: slice, of: int) -> Array:
    """The heads of `array` that serve the output's `heads`; the whole array serves `of` output heads."""
    group = of // len(array)
    return array[heads.start // group : ceil_div(heads.stop, group)]


def _head_steps(
    grid: tuple[int, ...], arrays: tuple[Array, ...], specs: dict[str, Spec]
) -> Iterator[tuple[tuple[int, ...], slice]]:
    """The heads of each step: a slice of the last leading axis that never cuts two groups with shared keys."""
    heads = grid[-1]
    if not math.prod(grid):
        return
    head_bytes = sum(math.prod(a.shape[-2:]) * a.itemsize for a in arrays)
    head_bytes += sum(spec.nbytes for spec in specs.values()) // math.prod(grid)
    groups = [heads // a.shape[-3] for a in arrays]
    size = max(min(heads, STEP_BYTES // max(head_bytes, 1)), 1)
    while any(size % group and group % size for group in groups if group < heads):
        size -= 1
    for outer in np.ndindex(*grid[:-1]):
        for start in range(0, heads, size):
            yield outer, slice(start, min(start + size, heads))
