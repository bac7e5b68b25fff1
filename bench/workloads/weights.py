"""Weights without their matrix: summaries, arrays, rows, pictures; beside attention alone and PyTorch's matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import own
from bench.peers import pytorch
from bench.workload import Reading, Workload, ahead, faster_than, takes
from bench.workloads import questions
from clearhead import attend, full, weights
from clearhead.arrays import Array
from clearhead.cli.bench import Shape, operands, operations
from clearhead.cli.race import Contender, Exact
from clearhead.definition import textbook
from clearhead.rules.masks import causal

TWO = ("entropy", "received_sum")
FUSED = (*TWO, "top", "distance", "first")
COMPARED = (*TWO, "distance", "first")  # answers of one number for each item
IN_ORDER = (
    "a score is two chains over the dims of its key, so that keys are transposed in registers, and transposing adds to "
    "the time that memory takes; PyTorch sums 16 dims of a key at a time"
)
BLOCK = 512  # rows of a matrix that is too large to make at once


def workloads(*, quick: bool) -> Iterator[Workload | Reading]:
    """Summaries and arrays include the forward pass that gives output and LSE; questions at the end know the LSE."""
    for shape in ((1, 2, 130, 16),) if quick else ((1, 8, 2048, 64), (1, 2, 8192, 64)):
        yield from summaries(shape)
    yield array((1, 2, 130, 16) if quick else (1, 8, 2048, 64))
    length = 640 if quick else 32768
    yield row(length)
    yield picture(length)
    yield questions.beside_forward(length)
    yield questions.memory(length)


def summaries(shape: Shape) -> Iterator[Workload]:
    """Output, with two answers and with five."""
    q, k, v = operands(shape)
    whole = shape[2] <= 2048
    for name, asked, bound in (("entropy and received mass", TWO, 1.6), ("five answers", FUSED, 2.0)):
        answers = [one for one in asked if one in COMPARED]
        theirs = Matrix(tuple(asked), shape[2])
        peer = {"PyTorch, whole matrix": lambda theirs=theirs: theirs.whole(q, k, v)}
        if not whole:
            peer = {"PyTorch, rows of the matrix": lambda theirs=theirs: theirs.blocks(q, k, v)}
        promises = (ahead(), takes("forward", bound))
        if asked == FUSED and whole:
            promises += (faster_than("PyTorch, whole matrix", 6.0),)
        yield Workload(
            f"output, {name}, {shape}",
            lambda answers=answers: Exact(exact(q, k, answers), close=1e-2),
            {
                "clearhead": lambda asked=asked, answers=answers: own.asked(
                    q, k, v,
                    lambda done: done.weights.summary(*asked),
                    lambda s, answers=answers: np.stack([s[one][0, 0] for one in answers]),
                )
            },
            peer,
            {"forward": lambda: own.forward(q, k, v)},
            operations=operations(shape),
            promises=promises,
            memory=asked == FUSED,
        )  # fmt: skip


class Matrix:
    """The same answers in PyTorch, from all weights at once or some rows at a time."""

    def __init__(self, asked: tuple[str, ...], length: int) -> None:
        self.asked, self.length = asked, length

    def answers(self, torch: Any, a: Any, first: int) -> dict[str, Any]:
        """What is asked of these rows."""
        rows, keys = a.shape[-2:]
        apart = (first + torch.arange(rows)[:, None] - torch.arange(keys)).to(a.dtype)
        each = {
            "entropy": lambda: -torch.xlogy(a, a).sum(-1),
            "received_sum": lambda: torch.nn.functional.pad(a.sum(-2), (0, self.length - keys)),
            "top": lambda: a.topk(min(8, keys)),
            "distance": lambda: torch.einsum("bhij,ij->bhi", a, apart),
            "first": lambda: a[..., 0],
        }
        return {name: each[name]() for name in self.asked}

    def whole(self, q: Array, k: Array, v: Array) -> Contender:
        """From the whole matrix, which gives the output too."""

        def use(torch: Any, a: Any, value: Any) -> dict[str, Any]:
            return self.answers(torch, a, 0) | {"output": a @ value}

        return pytorch.by_matrix(q, k, v, use, lambda found: self.read([found]))

    def blocks(self, q: Array, k: Array, v: Array) -> Contender:
        """From blocks of rows."""
        (value,) = pytorch.tensors(v)

        def use(torch: Any, a: Any, first: int) -> dict[str, Any]:
            return self.answers(torch, a, first) | {"output": a @ value[..., : a.shape[-1], :]}

        return pytorch.by_rows(q, k, BLOCK, use, self.read)

    def read(self, found: list[dict[str, Any]]) -> Array:
        """The first head's answers of one number for each item."""
        rows = {
            name: np.concatenate([np.asarray(part[name][0, 0]) for part in found])
            for name in self.asked
            if name in COMPARED and name != "received_sum"
        }
        rows["received_sum"] = np.sum([np.asarray(part["received_sum"][0, 0], np.float64) for part in found], 0)
        return np.stack([rows[name] for name in self.asked if name in COMPARED])


def exact(q: Array, k: Array, answers: list[str]) -> Array:
    """The first head's answers in float64, some rows at a time."""
    n = q.shape[-2]
    q, k = q[0, 0].astype(np.float64), k[0, 0].astype(np.float64)
    found = {name: np.zeros(n) for name in COMPARED}
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        a = textbook.weights_of_rows(q, k, rows, causal(), q.shape[-1] ** -0.5)
        with np.errstate(divide="ignore", invalid="ignore"):
            found["entropy"][rows] = -np.where(a > 0, a * np.log(a), 0).sum(-1)
        found["received_sum"] += a.sum(0)
        found["distance"][rows] = (a * np.abs(rows[:, None] - np.arange(n))).sum(-1)
        found["first"][rows] = a[:, 0]
    return np.stack([found[name] for name in answers])


def array(shape: Shape) -> Workload:
    """Output and all weights as an array."""
    q, k, v = operands(shape)
    rows = np.arange(0, shape[2], max(1, shape[2] // 16))
    wide_q, wide_k = (x.astype(np.float64) for x in (q, k))
    work = operations(shape)
    return Workload(
        f"output and np.asarray(weights), {shape}",
        lambda: Exact(
            textbook.weights_of_rows(wide_q, wide_k, rows, causal(), shape[3] ** -0.5), lambda a: a[..., rows, :]
        ),
        {"clearhead": lambda: own.asked(q, k, v, lambda done: (done.output, np.asarray(done.weights)), lambda y: y[1])},
        {"PyTorch, whole matrix": lambda: pytorch.by_matrix(q, k, v, with_output, lambda y: np.asarray(y[1]))},
        {"forward": lambda: own.forward(q, k, v)},
        operations=work,
        bytes=4 * q.nbytes + 4 * shape[1] * shape[2] ** 2,
        promises=(ahead(), takes("forward", 2.2)),
        cause="scores and exponentials are computed twice: once for the LSE, once for the array",
    )


def with_output(torch: Any, a: Any, value: Any) -> Any:
    """The output, and the weights."""
    return a @ value, a


def row(keys: int) -> Workload:
    """The last row of 8 heads, LSE known."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((8, keys, 64)).astype(np.float32) for _ in range(3))
    last = np.ascontiguousarray(q[:, -1:])
    lse = np.zeros((8, keys), np.float32)
    lse[:, -1:] = attend(last, k, v, mask=full()).lse
    w = weights(q, k, lse=lse, threads=1)

    def peer() -> Contender:
        query, key = pytorch.tensors(last, k)
        return Contender(lambda: (query @ key.transpose(-1, -2) * 64**-0.5).softmax(-1), lambda a: np.asarray(a)[:, 0])

    wide_q, wide_k = (x.astype(np.float64) for x in (last, k))
    return Workload(
        f"one row of {keys} keys × 8 heads",
        lambda: Exact(textbook.weights_of_rows(wide_q, wide_k, [0], full(), 64**-0.5)[:, 0]),
        {"clearhead": lambda: Contender(lambda: w.row(-1), lambda a: np.asarray(a).reshape(8, keys))},
        {"PyTorch": peer},
        {"decode": lambda: own.forward(last, k, v, mask=full())},
        bytes=k.nbytes,
        promises=(ahead(), takes("decode", 1.2)),
        cause=IN_ORDER,
    )


def picture(length: int) -> Workload:
    """A picture of 512² pixels, the largest weight in each."""
    q, k, v = (x[0, 0] for x in operands((1, 1, length, 64)))
    w = attend(q, k, v, threads=1).weights
    side = min(512, length // 10)
    rows = length // side

    def pooled(torch: Any, a: Any, first: int) -> Any:
        a = torch.nn.functional.pad(a, (0, length - a.shape[-1]))[:, : rows * side]
        return a.reshape(-1, rows, side, rows).amax((1, 3))

    def expected() -> Exact:
        wide_q, wide_k = (x.astype(np.float64) for x in (q, k))
        a = textbook.weights_of_rows(wide_q, wide_k, np.arange(rows * (side - 1), rows * side), causal(), 64**-0.5)
        return Exact(a[:, : rows * side].reshape(rows, side, rows).max((0, 2)), lambda m: m[side - 1])

    return Workload(
        f"a picture of {side}² pixels of {length}² weights",
        expected,
        {"clearhead": lambda: Contender(lambda: w.map(size=side))},
        {"PyTorch, rows of the matrix": lambda: pytorch.by_rows(q, k, 8 * rows, pooled, lambda y: np.concatenate(y))},
        {"forward": lambda: own.forward(q, k, v)},
        operations=operations((1, 1, length, 64)) / 2,
        operations_of={"forward": operations((1, 1, length, 64))},
        promises=(ahead(), takes("forward", 0.7)),
    )
