"""Time, bytes and memory of one causal attention call over many machines, on paper; `scripts/simulate` prints tables.

Queries stay where they are. Keys and values come to every machine in segments, in ascending order, while earlier ones
are used. Rows are dealt out in units, in a zig-zag (0 1 … R−1 R−1 … 1 0 0 1 …), so that each machine has early and late
ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]  # one for each machine, along the last axis
Numbers = npt.NDArray[np.float64]
Way = Literal["stream", "gather"]
SEGMENT = 2048
AT_ONCE = 512  # segments in one array


@dataclass(frozen=True)
class Assumptions:
    """What a machine computes, what it sends, and how rows are dealt out."""

    rate: float = 4800.0  # 1e9 multiplications and additions a second, of one machine
    heads: int = 32
    key_heads: int = 8
    dim: int = 128
    value_dim: int = 128
    itemsize: int = 4  # bytes of a number that is sent; sums are carried in float32 or wider
    latency: float = 50.0  # microseconds of a message
    relay: str = "direct"  # a segment's owner sends it to each machine; "chain": each machine hands it on to the next
    message: int = 65536  # bytes that a chain hands on as soon as they have come
    unit: int = 2048  # rows that are dealt out together
    ahead: int = 2  # segments on their way while one is used

    @property
    def pair(self) -> int:
        """Multiplications and additions for one query and one key that it sees, forward, over all heads."""
        return 2 * (self.dim + self.value_dim) * self.heads

    @property
    def key_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.key_heads * (self.dim + self.value_dim) * self.itemsize

    @property
    def query_bytes(self) -> int:
        """Bytes of one token's queries, gradients of the output, log-sum-exps and δ."""
        return self.heads * ((self.dim + self.value_dim) * self.itemsize + 2 * self.sum_bytes)

    @property
    def sum_bytes(self) -> int:
        """Bytes of a number that is carried: 16-bit operands are computed in float32."""
        return max(4, self.itemsize)


@dataclass(frozen=True)
class Step:
    """One walk over all segments: its work, in forward passes, and what travels."""

    work: float
    travels: Literal["keys", "queries"]
    token_bytes: int  # of what travels


@dataclass(frozen=True)
class Pass:
    """The steps of a forward or backward pass over machines, and its work on one machine, in forward passes."""

    name: str
    steps: tuple[Step, ...]
    alone: float


def forward(given: Assumptions) -> Pass:
    """Keys and values come to the queries."""
    return Pass("forward", (Step(1.0, "keys", given.key_bytes),), 1.0)


def backward(given: Assumptions) -> Pass:
    """The bits of one process: dQ where queries are (S, dP, dQ), then dK and dV where keys are (S, dP, dK, dV)."""
    steps = Step(1.5, "keys", given.key_bytes), Step(2.0, "queries", given.query_bytes)
    return Pass("backward", steps, 2.5)  # one process computes S and dP once


@dataclass(frozen=True)
class Outcome:
    """What a pass takes on some machines."""

    seconds: list[float]  # with each link
    efficiency: list[float]  # one machine's time over that of all together
    balance: float  # the busiest machine's work over the mean
    received: int  # bytes, by the machine that owns least
    memory: int  # bytes of operands, sums and segments, on the machine that owns most


def rows_before(position: Counts, machines: int, unit: int) -> tuple[Counts, Counts]:
    """How many rows before a position each machine owns, and the sum of their positions."""
    period = 2 * machines * unit
    rounds, rest = np.divmod(position[..., None], period)
    count, total = np.zeros((2, *rounds.shape[:-1], machines), np.int64)
    for place in (np.arange(machines), 2 * machines - 1 - np.arange(machines)):
        first = place * unit
        last = np.clip(rest - first, 0, unit)  # rows of the unfinished round
        count += rounds * unit + last
        total += rounds * (unit * first + unit * (unit - 1) // 2) + period * unit * (rounds * (rounds - 1) // 2)
        total += last * (rounds * period + first) + last * (last - 1) // 2
    return count, total


def pairs_by_segment(tokens: int, machines: int, unit: int, travels: str) -> Iterator[Counts]:
    """Pairs of query and key that each machine computes with each segment: (some segments, machines), in order.

    Where keys travel, a machine's queries meet each segment of keys; where queries travel, its keys meet each segment
    of queries.
    """
    all_rows, all_positions = rows_before(np.array(tokens), machines, unit)
    edges = borders(tokens)
    for first in range(0, len(edges) - 1, AT_ONCE):
        x = edges[first : first + AT_ONCE + 1]
        count, total = rows_before(x, machines, unit)
        if travels == "keys":  # own queries with the keys from x on
            yield -np.diff(all_positions - total + (1 - x[:, None]) * (all_rows - count), axis=0)
        else:  # own keys with the queries before x
            yield np.diff(x[:, None] * count - total, axis=0)


def outcome(
    work: Pass, tokens: int, machines: int, links: Sequence[float], given: Assumptions, way: Way = "stream"
) -> Outcome:
    """Time, bytes and memory of a pass over some machines, with each link, in Gb/s."""
    seconds = sum((seconds_of(step, tokens, machines, links, given, way) for step in work.steps), np.zeros(len(links)))
    alone = work.alone * given.pair * pair_count(tokens) / (given.rate * 1e9)
    rows, _ = rows_before(np.array(tokens), machines, given.unit)
    return Outcome(
        seconds=seconds.tolist(),
        efficiency=(alone / seconds / machines).tolist(),
        balance=max(balance(step, tokens, machines, given.unit) for step in work.steps),
        received=sum((tokens - int(rows.min())) * step.token_bytes for step in work.steps),
        memory=memory_of(work, tokens, machines, int(rows.max()), given, way),
    )


def seconds_of(step: Step, tokens: int, machines: int, links: Sequence[float], given: Assumptions, way: Way) -> Numbers:
    """Seconds of a step with each link.

    "stream" sends the next segment as soon as every machine has room for it; "gather" fetches everything first.
    """
    pair_seconds = step.work * given.pair / (given.rate * 1e9)
    if machines == 1:
        return np.full(len(links), pair_count(tokens) * pair_seconds)
    token_seconds = step.token_bytes / (np.array(links) * 1e9 / 8)
    if way == "stream":
        return streamed(step, tokens, machines, token_seconds, pair_seconds, given)
    computing = balance(step, tokens, machines, given.unit) * pair_count(tokens) / machines * pair_seconds
    return streamed(step, tokens, machines, token_seconds, 0.0, given) + computing


def streamed(
    step: Step, tokens: int, machines: int, token_seconds: Numbers, pair_seconds: float, given: Assumptions
) -> Numbers:
    """Seconds with each link until the last machine has used the last segment."""
    chained, latency = given.relay == "chain", given.latency * 1e-6
    lines = np.zeros((machines, len(token_seconds)))  # until when each machine's own line is busy with sending
    done, first = np.zeros((len(token_seconds), machines)), borders(tokens)
    room = deque([lines[0]] * (given.ahead + 1))  # when the slowest machine is done with each of the segments held
    every = chain.from_iterable(pairs_by_segment(tokens, machines, given.unit, step.travels))
    for start, length, pairs in zip(first, np.diff(first), every, strict=False):
        line = 0 if chained else owner_of(int(start), machines, given.unit)
        copies = 1 if chained else machines - 1
        come = np.maximum(lines[line], room.popleft()) + copies * length * token_seconds + latency
        lines[line] = come
        done = np.maximum(done, come[:, None]) + pairs * pair_seconds
        room.append(done.max(axis=1))
    message = min(given.message / step.token_bytes, SEGMENT) * token_seconds + latency
    finished: Numbers = done.max(axis=1) + (machines * message if chained else 0)  # the last machine starts later
    return finished


def owner_of(row: int, machines: int, unit: int) -> int:
    """The machine that a row is dealt to."""
    place = row // unit % (2 * machines)
    return min(place, 2 * machines - 1 - place)


def balance(step: Step, tokens: int, machines: int, unit: int) -> float:
    """The busiest machine's pairs over the mean."""
    own = sum(pairs.sum(axis=0) for pairs in pairs_by_segment(tokens, machines, unit, step.travels))
    return float(np.max(own) / np.mean(own))


def memory_of(work: Pass, tokens: int, machines: int, rows: int, given: Assumptions, way: Way) -> int:
    """Bytes of a machine's own queries, keys, values and sums, and of the foreign tokens that it holds at once."""
    sums = given.heads * (given.value_dim + 2) * given.sum_bytes
    own = rows * (given.heads * given.dim * given.itemsize + given.key_bytes + sums)
    if machines == 1:
        return own
    held = min(tokens, SEGMENT * (given.ahead + 1)) if way == "stream" else tokens - rows
    return own + held * max(step.token_bytes for step in work.steps)


def borders(tokens: int) -> Counts:
    """Where segments begin, and where the last one ends."""
    return np.append(np.arange(0, tokens, SEGMENT), tokens)


def pair_count(tokens: int) -> int:
    """Pairs of query and key that a causal mask shows."""
    return tokens * (tokens + 1) // 2


def even_machines(tokens: int, link: float, given: Assumptions) -> int:
    """How many machines take as long to receive keys and values as to compute a forward pass."""
    computing = given.pair * pair_count(tokens) / (given.rate * 1e9)
    return round(computing / (tokens * given.key_bytes / (link * 1e9 / 8)))
