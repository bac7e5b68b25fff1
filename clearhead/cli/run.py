"""`clearhead run`: attention over array files, step by step, into a new file that appears whole.

Responsible for computing a job's steps and for going on with them. Memory holds one step at a time. Not for what is
computed (`job`), in which order (`steps`), or where results go (`places`, `pieces`).
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import weights_of
from clearhead.cli.job import Job
from clearhead.cli.pieces import Piece
from clearhead.cli.places import Places, WholePlaces
from clearhead.cli.steps import Step, Stretch, remaining
from clearhead.engine.execute import execute_rows
from clearhead.engine.inputs import Operands, Rules
from clearhead.errors import FileError
from clearhead.files import new_file, release, resumable_file
from clearhead.files.resuming import Filling, finished_before, replacing_unfinished
from clearhead.files.writing import layout_of

SAVED_EVERY = 0.5  # seconds, at least

Show = Callable[[int, int], AbstractContextManager[Callable[[int], None]]]  # of all pairs, and of those done


@dataclass(frozen=True)
class Report:
    """What a run computed and its speed; as text, the line printed at the end."""

    job: Job
    target: Path
    pairs: int  # that were computed, not found
    seconds: float
    part: tuple[int, int] | None = None

    @property
    def flops(self) -> int:
        """Multiplications and additions of the two products, over the visible pairs."""
        return 2 * self.pairs * (self.job.problem.query_dim + self.job.problem.value_dim)

    def __str__(self) -> str:
        problem, options = self.job.problem, self.job.options
        arrays = ", ".join(f"{name} {spec.shape}" for name, spec in self.job.specs.items())
        of = "" if self.part is None else "part {} of {} of ".format(*self.part)
        speed = f"{self.seconds:.3g} s, {self.flops / self.seconds / 1e9:.3g} GF/s" if self.seconds else "there already"
        return (
            f"{self.target}: {of}{arrays} in {problem.dtype} from {self.job.names}, {options.mask}, "
            f"scale {problem.scale:.6g}; {speed}"
        )


def execute(
    job: Job,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    resume: bool = False,
    part: tuple[int, int] | None = None,
    show: Show = lambda total, done: nullcontext(lambda pairs: None),
) -> Report:
    """Compute a job into a new file, or a part of it into the part's piece; `show` is told how many pairs are done.

    A run that stops early leaves nothing; one to `resume` leaves its unfinished file and journal, and goes on with
    them. Raises FileError where the file exists or another run of it is unfinished (unless `force`), where it is the
    job's source, or cannot be written.
    """
    path, specs, undertaking = Path(target), job.specs, job.undertaking()
    check_apart(path, job.source)
    stretches: Sequence[Stretch] = ((0, job.order.rows),)
    piece = None
    if part is not None:
        layout_of(path, specs)  # which `join` writes
        stretches = job.order.share(*part)
        piece = Piece.of(job, part, stretches, undertaking)
        path, specs, undertaking = piece.beside(path), piece.specs, {"--part": "{}/{}".format(*part), **undertaking}
    if resume and (finished_before(path, undertaking) or (piece and not force and piece.is_at(path))):
        return Report(job, path, 0, 0.0, part)
    with ExitStack() as stack:
        filling = None
        if resume:
            filling = stack.enter_context(resumable_file(path, specs, undertaking, force=force))
        else:
            stack.enter_context(replacing_unfinished(path, force=force))
        arrays = filling.arrays if filling else stack.enter_context(new_file(path, specs, force=force))
        places: Places = piece.places(arrays) if piece else WholePlaces(job.order, job.asked, arrays)
        if piece:
            piece.write_plan(arrays)
        start = perf_counter()
        pairs = Run(job, stretches, places, arrays, filling).compute(show)
        if piece:
            piece.write_checksum(arrays)
        seconds = perf_counter() - start
    return Report(job, path, pairs, seconds, part)


def check_apart(target: Path, source: Path) -> None:
    """Check that the output is not the input itself."""
    same = False
    with suppress(OSError, ValueError):  # a missing file is fine, and `new_file` refuses an impossible name
        same = target.samefile(source)
    if same:
        raise FileError(f"{target} is the input itself: name another file for the output.")


@dataclass(frozen=True)
class Run:
    """The computation of a job's rows, in some stretches, into arrays that may be those of a resumable file."""

    job: Job
    stretches: Sequence[Stretch]
    places: Places
    arrays: dict[str, Array]
    filling: Filling | None

    def compute(self, show: Show) -> int:
        """Compute what is left; returns the number of pairs."""
        order, done = self.job.order, self.filling.done if self.filling else 0
        rows = sum(stop - start for start, stop in self.stretches)
        if not 0 <= done <= rows:
            raise FileError(f"the journal counts {done} rows of {rows}, so it is damaged: begin anew by --force.")
        total, left = (sum(order.pairs(*s) for s in some) for some in (self.stretches, remaining(self.stretches, done)))
        with show(total, total - left) as advance:
            saved = monotonic()
            for step in order.steps(self.stretches, done, self.job.budget):
                self._compute_step(step)
                done += step.stop - step.start
                if monotonic() - saved >= SAVED_EVERY:
                    self._save(done)
                    saved = monotonic()
                release(*self.arrays.values(), *(self.job.arrays if step.rows[1] == order.queries else ()))
                advance(order.pairs(step.start, step.stop))
            self._save(done)
        return left

    def _save(self, done: int) -> None:
        if self.job.changed:
            again = "begin anew by --force" if self.filling else "run it again"
            error = FileError(f"{self.job.source} was changed while it was read: {again} when it is complete.")
            if self.filling:
                self.filling.spoil(str(error))
            raise error
        if self.filling:
            self.filling.save(done)

    def _compute_step(self, step: Step) -> None:
        job, options, out = self.job, self.job.options, self.places.output(step)
        q, k, v = job.operands(step)
        rules, operands = Rules(options.mask, job.rules, scale=job.problem.scale), Operands(q, k, v)
        _, lse = execute_rows(operands, rules, step.rows, threads=options.threads, out=out, lse=options.lse)
        if options.lse:
            self.places.lse(step)[...] = lse
        wanted = list(self.places.weights(step))
        if wanted:
            if job.order.together:
                q = np.broadcast_to(q, (*job.problem.lead, *q.shape[-2:]))  # rules read the heads of the output
            weights = weights_of(q, k, rules, lse=None, threads=options.threads, matching=True)
            for row, target in wanted:
                target[...] = weights.row(row)  # one by one, so that memory holds one
