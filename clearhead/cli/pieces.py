"""Pieces: the files of a run's parts, and `clearhead join`, which makes the whole file of them.

Part 3 of 16 of out.npy is out.npy.3-of-16.safetensors: flat arrays of the part's rows, and the plan, which says what
they are rows of.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from clearhead.arrays import Array
from clearhead.cli.places import PiecePlaces, Places, WholePlaces
from clearhead.cli.steps import PART_NUMBER, Budget, Order, Stretch
from clearhead.errors import FileError
from clearhead.files import Spec, new_file, open_arrays, release
from clearhead.files.reading import reading_from, regular
from clearhead.files.resuming import journal_of, sync_folder
from clearhead.files.undertaking import TIME, Undertaking, check_same, difference
from clearhead.files.writing import writing_to

if TYPE_CHECKING:
    from clearhead.cli.job import Job

FORMAT = 2  # of plans
KIND_AND_CURE = "part of a run", "compute it again by --part, with --force"
ANY_PAIRS = 1 << 62
SUMMED_BYTES = 1 << 24  # at a time


@dataclass(frozen=True)
class Piece:
    """One part of a run: which rows it holds, and of what."""

    part: int
    parts: int
    lead: tuple[int, ...]
    queries: int
    keys: int
    value_dim: int
    dtype: str
    together: bool
    arrays: tuple[str, ...]  # of the whole file
    asked: tuple[int, ...]
    stretches: tuple[Stretch, ...]
    undertaking: dict[str, str]
    format: int = FORMAT

    @staticmethod
    def of(job: "Job", part: tuple[int, int], stretches: Sequence[Stretch], undertaking: Undertaking) -> "Piece":
        """The piece of a job's part."""
        problem = job.problem
        return Piece(
            *part, problem.lead, problem.queries, problem.keys, problem.value_dim, problem.dtype, job.order.together,
            tuple(job.specs), job.asked, tuple(stretches), dict(undertaking),
        )  # fmt: skip

    @property
    def order(self) -> Order:
        """The numbers of its rows."""
        return Order(self.lead, self.queries, self.together)

    @property
    def plan(self) -> bytes:
        """All of this as a text, kept in the file."""
        return json.dumps(asdict(self)).encode()

    @property
    def specs(self) -> dict[str, Spec]:
        """The flat arrays of its file."""
        sizes = self.places({}).sizes
        flat = {name: Spec((sizes[name],), np.dtype(self.dtype)) for name in self.arrays}
        plan, checksum = Spec((len(self.plan),), np.dtype(np.uint8)), Spec((4,), np.dtype(np.uint8))
        return {"plan": plan, "checksum": checksum, **flat}

    @property
    def whole(self) -> dict[str, Spec]:
        """The arrays of the whole file."""
        rows = {"output": (self.queries, self.value_dim), "lse": (self.queries,)}
        rows["weights"] = (len(self.asked), self.keys)
        return {name: Spec((*self.lead, *rows[name]), np.dtype(self.dtype)) for name in self.arrays}

    def beside(self, target: Path) -> Path:
        """The name of its file, beside the whole one's."""
        return target.with_name(f"{target.name}.{self.part}-of-{self.parts}.safetensors")

    def places(self, arrays: dict[str, Array]) -> PiecePlaces:
        """Where results go in its file."""
        return PiecePlaces(self.order, self.asked, arrays, self.stretches, self.keys, self.value_dim)

    def write_plan(self, arrays: dict[str, Array]) -> None:
        """Put the plan into its file."""
        arrays["plan"][:] = np.frombuffer(self.plan, np.uint8)

    def checksum(self, arrays: Mapping[str, Array]) -> bytes:
        """The CRC-32 of the plan and all rows."""
        found = crc32(self.plan)
        for name in self.arrays:
            flat, step = arrays[name], SUMMED_BYTES // arrays[name].itemsize
            for start in range(0, len(flat), step):
                found = crc32(flat[start : start + step].data, found)
                release(flat)
        return found.to_bytes(4, "little")

    def write_checksum(self, arrays: dict[str, Array]) -> None:
        """Put the checksum into its file, whose rows are complete."""
        arrays["checksum"][:] = np.frombuffer(self.checksum(arrays), np.uint8)

    def is_at(self, path: Path) -> bool:
        """Whether a whole file of this very piece is there; raises FileError if it is a file of anything else."""
        with writing_to(path):
            if not path.exists():
                return False
        found = read_piece(path)
        check_same(f"the part in {path}", found.undertaking, self.undertaking, "compute it again by --force")
        if found != self:
            raise FileError(f"{path} holds other rows than this part: compute it again by --force.")
        return True


def read_piece(path: Path) -> Piece:
    """The plan in a piece's file; raises FileError if it is not one."""
    plan = stored(path, "plan")
    with reading_from(path, *KIND_AND_CURE):
        said = json.loads(plan)
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']}, and this clearhead reads {FORMAT}")
        lists = {name: tuple(said[name]) for name in ("lead", "arrays", "asked")}
        return Piece(**(said | lists | {"stretches": tuple((a, b) for a, b in said["stretches"])}))


def stored(path: Path, name: str) -> bytes:
    """What a piece's file holds besides rows."""
    from safetensors import safe_open

    with reading_from(path, *KIND_AND_CURE), regular(path), safe_open(path, "numpy") as file:
        content: bytes = file.get_tensor(name).tobytes()
    return content


def join(target: Path, *, force: bool = False, keep: bool = False) -> int:
    """Make a whole file of its pieces, which are removed then, unless `keep`; returns how many there were.

    Raises FileError, and changes nothing, unless all are there and of one run.
    """
    found = pieces_beside(target)
    first = found[0][1]
    with new_file(target, first.whole, force=force) as arrays:
        whole = WholePlaces(first.order, first.asked, arrays)
        for path, piece in found:
            copy_rows(piece, path, whole)
            release(*arrays.values())
    sync_folder(target)
    if not keep:
        with writing_to(target):
            for path, _ in found:
                path.unlink()
    return len(found)


def pieces_beside(path: Path) -> list[tuple[Path, Piece]]:
    """The pieces of a file in the order of their names, with their paths; raises FileError unless they make a whole."""
    named = re.compile(rf"{re.escape(path.name)}\.({PART_NUMBER})-of-({PART_NUMBER})\.safetensors", re.ASCII)
    with writing_to(path):
        matches = [match for match in map(named.fullmatch, os.listdir(path.parent)) if match]
    if not matches:
        raise FileError(
            f"{path} has no parts beside it, such as {path.name}.1-of-2.safetensors: compute them first, by "
            f"clearhead run INPUT -o {path} --part 1/2 and --part 2/2."
        )
    there = {(int(match[1]), int(match[2])): path.with_name(match[0]) for match in matches}
    counts = sorted({parts for _, parts in there})
    if len(counts) > 1:
        names = " and ".join(f"parts of {parts}" for parts in counts)
        raise FileError(f"{path} has {names} beside it: remove those that you do not want, as {matches[0][0]}.")
    missing = [part for part in range(1, counts[0] + 1) if (part, counts[0]) not in there]
    if missing:
        raise FileError(missing_text(path, missing, counts[0]))
    paths = [there[part, counts[0]] for part in range(1, counts[0] + 1)]
    found = [(name, read_piece(name)) for name in paths]
    for other in found:
        check_alike(found[0], other)
    ends = sorted(stretch for _, piece in found for stretch in piece.stretches)
    if [start for start, _ in ends] + [found[0][1].order.rows] != [0] + [stop for _, stop in ends]:
        raise FileError(f"the parts of {path} do not hold each row once: compute them again by --part, with --force.")
    return found


def missing_text(path: Path, missing: list[int], parts: int) -> str:
    """Which parts are not there, and what to do about the first."""
    first = missing[0]
    some = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    begun = journal_of(path.with_name(f"{path.name}.{first}-of-{parts}.safetensors")).exists()
    what = f"part {some} of {parts} is" if len(missing) == 1 else f"parts {some} of {parts} are"
    it = "it" if len(missing) == 1 else "the first"
    cure = f"go on with {it} by --part {first}/{parts} --resume" if begun else f"compute {it} by --part {first}/{parts}"
    return f"{path} cannot be joined: {what} {'unfinished' if begun else 'missing'}: {cure}."


def check_alike(begun: tuple[Path, Piece], other: tuple[Path, Piece]) -> None:
    """Refuse a piece of another run than the first's, whose input, options or code differ."""
    (first_path, first), (path, piece) = begun, other
    differs = difference(first.undertaking, piece.undertaking, but=(TIME,))  # copies of one file have their own times
    if differs is not None:
        name, ours, theirs = differs
        raise FileError(
            f"{path} is of another run than {first_path.name}: {name} is {theirs} there, and {ours} in the first: "
            "compute one of them again by --part, with --force."
        )
    expected = (first.lead, first.queries, first.keys, first.value_dim, first.arrays, first.asked)
    if expected != (piece.lead, piece.queries, piece.keys, piece.value_dim, piece.arrays, piece.asked):
        raise FileError(f"{path} has other shapes than {first_path.name}: compute it again.")


def copy_rows(piece: Piece, path: Path, whole: Places) -> None:
    """Copy a piece's rows to where they belong in the whole file, some at a time."""
    source = open_arrays(path)
    arrays = {name: source[name] for name in piece.arrays}
    if any(array.shape != piece.specs[name].shape for name, array in arrays.items()):
        raise FileError(f"{path} has arrays of other lengths than its plan: compute it again by --part, with --force.")
    if piece.checksum(arrays) != stored(path, "checksum"):
        raise FileError(f"{path} is damaged, for its checksum is another: compute it again by --part, with --force.")
    each = sum(spec.nbytes for spec in piece.whole.values()) // max(1, piece.order.heads)
    places, budget = piece.places(arrays), Budget(ANY_PAIRS, each, each // max(1, piece.queries))
    for step in piece.order.steps(piece.stretches, 0, budget):
        whole.output(step)[...] = places.output(step)
        if "lse" in arrays:
            whole.lse(step)[...] = places.lse(step)
        for (_, target), (_, rows) in zip(whole.weights(step), places.weights(step), strict=True):
            target[...] = rows
        release(*arrays.values())
