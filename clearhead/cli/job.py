"""What a run computes: the roles of a file's arrays, rules and options, all checked before anything is computed."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.cli.steps import PART_NUMBER, Budget, Order, Step
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem, problem_of
from clearhead.errors import ClearheadError, FileError, InputError
from clearhead.files import Spec, open_arrays
from clearhead.files.reading import reading_from
from clearhead.files.undertaking import RULES, Undertaking, of_code, of_input, time_of
from clearhead.machine.target import target
from clearhead.machine.threads import SLICE, allowed
from clearhead.once import cached_property
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal
from clearhead.rules.named import named_score, rule_from_file
from clearhead.rules.scores import Score

STEP_OPERATIONS = 1 << 37  # of a step on each core with AVX-512: about a second


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
    time: str  # when the source was written

    @property
    def changed(self) -> bool:
        """Whether its source was written to since it was opened; its arrays are read where they lie."""
        with reading_from(self.source):
            return time_of(os.stat(self.source)) != self.time

    @cached_property
    def order(self) -> Order:
        """The order of its rows: all heads together if a rule reads batch or head."""
        problem = self.problem
        pairs_before = cache(lambda row: problem.rules.of_rows(0, row).pairs())
        return Order(problem.lead, problem.queries, bool({"batch", "head"} & problem.rules.leaves), pairs_before)

    def operands(self, step: Step) -> tuple[Array, Array, Array]:
        """All rows of the heads of a step: q, k and v."""
        if self.order.together:
            return self.arrays
        grid = self.problem.lead or (1,)
        a, b, c = (_shared_heads(_broadcast_heads(x, grid[:-1])[step.outer], step.heads, grid[-1]) for x in self.arrays)
        return a, b, c

    @property
    def asked(self) -> tuple[int, ...]:
        """The rows whose weights are wanted, counted from 0."""
        return tuple(row % self.problem.queries for row in self.options.rows)

    @property
    def budget(self) -> Budget:
        """What a step may take on."""
        problem, heads = self.problem, self.order.heads
        pace = SLICE[target().isa] / SLICE["avx512"]
        operations = int(STEP_OPERATIONS * pace) * (self.options.threads or allowed())
        results = sum(spec.nbytes for spec in self.specs.values()) // max(1, heads)
        item = self.arrays[0].itemsize
        return Budget(
            pairs=operations // (2 * (problem.query_dim + problem.value_dim)),
            head_bytes=results + sum(a.shape[-2] * a.shape[-1] * item for a in self.arrays),
            row_bytes=results // max(1, problem.queries) + problem.query_dim * item,
            groups=tuple(problem.lead[-1] // n for n in map(heads_of, self.arrays) if problem.lead and n > 1),
        )

    def undertaking(self) -> Undertaking:
        """All that the bits of the result depend on, in the user's words."""
        options, problem = self.options, self.problem
        said = {
            "the input": f"{self.names} in {problem.dtype}",
            "--mask": repr(options.mask),
            "--score": ", ".join(options.scores) or "not given",
            "--rule": ", ".join(options.functions) or "not given",
            "--scale": repr(problem.scale),
            "--lse": "given" if options.lse else "not given",
            "--weights": ",".join(map(str, options.rows)) or "not given",
            RULES: digest_of_rules(problem),
        }
        return said | of_input(self.source) | of_code()


def job_for(source: str | os.PathLike[str], options: Options) -> Job:
    """Open a file that holds x, or q, k and v, and check everything before anything is computed.

    The default scale is 1 for x, which attends to itself, and 1/√d for q, k and v. Raises FileError, DtypeError,
    ShapeError or InputError, each with the file's name.
    """
    with reading_from(Path(source)):
        time = time_of(os.stat(source))
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
    return Job(file.path, shapes, (q, k, v), problem, rules, options, _specs(problem, options), notes, time)


def _broadcast_heads(array: Array, outer: tuple[int, ...]) -> Array:
    """A view of the array as (*outer, its heads, length, dim), broadcast over `outer`."""
    array = array if array.ndim > 2 else array[None]
    return np.broadcast_to(array, (*outer, *array.shape[-3:]))


def _shared_heads(array: Array, heads: slice, of: int) -> Array:
    """The heads of `array` that serve the output's `heads`; the whole array serves `of` output heads."""
    group = of // len(array)
    return array[heads.start // group : ceil_div(heads.stop, group)]


def heads_of(array: Array) -> int:
    """The length of an operand's axis of heads."""
    return array.shape[-3] if array.ndim > 2 else 1


def digest_of_rules(problem: Problem) -> str:
    """A digest of what mask and scores come to, whatever files and modules they are written in."""
    rules = problem.rules
    digest = hashlib.sha256(repr((rules.spans, rules.low, rules.high)).encode())
    for formula in (rules.mask, rules.score):
        if formula is not None:
            digest.update(formula.expression.digest)
            for array in formula.arrays:
                digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def parse_rows(text: str) -> tuple[int, ...]:
    """Parse positions given on the command line.

    >>> parse_rows("0,5,-1")
    (0, 5, -1)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r} is not a list of positions: write whole numbers, as in 0,5,-1.") from None


def parse_part(text: str) -> tuple[int, int]:
    """Parse a part of a run given on the command line.

    >>> parse_part("3/16")
    (3, 16)
    """
    found = re.fullmatch(f"0{{0,5}}({PART_NUMBER})/0{{0,5}}({PART_NUMBER})", text, re.ASCII)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(
            f"--part {text[:40]} is not a part of a run: write 3/16 for the third of 16, from 1/16 to 16/16; "
            "there can be 999,999."
        )
    return part, parts


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
