"""Dense rows, some to a task: what kernels over finished sums walk, with dims in the lanes."""

from collections.abc import Callable, Iterator, Sequence

from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Int, Pointer, Vector, least
from clearhead.kernels.parts.frame import Frame


def each_row(f: Code, frame: Frame, task: Int) -> Iterator[Int]:
    """The rows of a task: the table's `rows` of all heads' queries, numbered through."""
    rows, every = frame.field("rows"), frame.field("queries") * frame.field("heads")
    first = task * rows
    yield from f.range(first, least(first + rows, every))


def each_dim(f: Code, dims: Int, sources: Sequence[Pointer], target: Pointer, change: Callable[..., Vector]) -> None:
    """target ← change(…sources) for each dim of a row: whole vectors, then one number at a time."""
    size = f.element.bytes
    vectors = dims // f.lanes
    for x in f.range(0, vectors):
        f.store(change(*(f.load(f.at(source, 0, x)) for source in sources)), f.at(target, 0, x))
    for d in f.range(vectors * f.lanes, dims):
        f.store(change(*(f.broadcast(source + d * size) for source in sources)).first(), target + d * size)
