"""Weights where nothing can be compiled: whole matrices of scores by the scalar program, and what a sweep asks of them.

Scores, log-sum-exps and weights have the kernels' bits, sums over weights those of `definition.weights`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array, Integers
from clearhead.attention_weights.labels import Labels
from clearhead.cache.pages import Paged
from clearhead.definition import canonical
from clearhead.definition import weights as definition
from clearhead.definition.elementary import exp
from clearhead.engine.by_definition import check_by_definition
from clearhead.engine.diagnosis import raise_rule_fault
from clearhead.engine.problem import Problem
from clearhead.machine.loading import llvm, notice


@dataclass(frozen=True)
class Scores:
    """All scores (heads, queries, keys), −∞ where hidden, and each row's log-sum-exp (heads, queries)."""

    scores: Array
    lse: Array


def defined_scores(problem: Problem, query: Array, keys: Array | Paged, sink: Array | None) -> Scores:
    """Compute them all at once; raises MachineError or TraceError."""
    check_by_definition(problem, problem.query_dim + 1)
    if problem.first_key:
        llvm()  # says what is missing
    notice()
    if problem.rules.doubtful:
        raise_rule_fault(problem, np.ones((*problem.lead, problem.queries), bool), query, keys)
    mask, rules = problem.rules.given
    key = keys.keys() if isinstance(keys, Paged) else keys
    query, key = (x.astype(problem.computed, copy=False) for x in (query, key))
    s = canonical.scores(query, key, mask=mask, score=rules, scale=problem.scale)
    nothing = np.zeros((*key.shape[:-1], 1), key.dtype)
    _, lse = canonical.attention(query, key, nothing, mask=mask, score=rules, sink=sink, scale=problem.scale)
    return Scores(s.reshape(problem.heads, *s.shape[-2:]), lse.reshape(problem.heads, -1))


def block_weights(s: Array, lse: Array) -> Array:
    """α = exp(s − LSE) of scores (heads, queries, keys), and exactly 0 where a pair is hidden."""
    with np.errstate(all="ignore"):
        a: Array = np.where(np.isneginf(s), s.dtype.type(0), exp(s - lse[..., None]))
    return a


def pool(a: Array, borders: Integers, how: str, target: Array) -> None:
    """Write sums or maxima over bins of rows, which begin at `borders`, and as many even bins of columns as it has."""
    join, a = (np.add, a) if how == "pool_sum" else (np.maximum, np.fmax(a, 0))
    columns = np.arange(target.shape[-1]) * a.shape[-1] // target.shape[-1]
    target[...] = join.reduceat(join.reduceat(a, borders[:-1], axis=-2), columns, axis=-1)


@dataclass(frozen=True)
class Asked:
    """What reductions are given besides weights."""

    problem: Problem
    queries: Integers
    begin: int  # the first key of the weights
    near: int
    top: int
    factors: Array | None
    labels: Labels | None
    ranges: int

    @property
    def positions(self) -> Integers:
        """Where each query stands among the keys."""
        return self.of_spans("offset") + self.queries

    def of_spans(self, name: str) -> Integers:
        """A number of each query's span."""
        return np.concatenate([np.full(span.queries, getattr(span, name)) for span in self.problem.rules.spans])[
            self.queries
        ]

    def apart(self, keys: int, shift: int = 0) -> Integers:
        """The distance between each query, or the item `shift` behind it, and each key."""
        found: Integers = np.abs(self.positions[:, None] + shift - np.arange(self.begin, self.begin + keys))
        return found

    def shares(self, a: Array) -> Array:
        """The share of each pair of labels and each range of distances, (heads, queries, pairs + ranges)."""
        found = []
        for n, beside in enumerate(() if self.labels is None else self.labels.apart):
            assert self.labels is not None  # noqa: S101
            of_queries, of_keys = self.labels.queries[:, n, self.queries], self.labels.keys[:, n]
            apart = self.apart(a.shape[-1], int(beside) - 1) if beside else None
            found.append(definition.matches(a, of_queries, of_keys, apart)[..., None])
        if self.ranges:
            edges = [0, *(1 << n for n in range(self.ranges))]
            found.append(definition.by_distance(a, self.apart(a.shape[-1]), edges))
        return np.concatenate(found, axis=-1)

    def of_rows(self, name: str, a: Array) -> Array:
        """A number of each row, (heads, queries)."""
        match name:
            case "entropy":
                return definition.entropy(a)
            case "distance":
                return definition.distance(a, self.apart(a.shape[-1]))
            case "within":
                return definition.within(a, self.apart(a.shape[-1]), self.near)
            case _:
                of_row = definition.first if name == "first" else definition.off_first
                return of_row(a, self.of_spans("first_key") - self.begin)


def reduce(asked: Asked, a: Array, consumers: Sequence[str], outputs: dict[str, Array], target: Array) -> None:
    """Write reductions of weights into a sweep's outputs and its target (heads, groups, kinds, keys)."""
    per_query = [name for name in consumers if name in ("entropy", "distance", "within", "first", "off_first")]
    for row, name in zip(outputs["rows"], per_query, strict=True):
        row[...] = asked.of_rows(name, a)
    for n, name in enumerate(name for name in ("received_sum", "received_max") if name in consumers):
        gather = definition.received_sum if name == "received_sum" else definition.received_max
        target[:, 0, n, : a.shape[-1]] = gather(a)
    if "top" in consumers:
        listed = a if asked.factors is None else a * asked.factors[:, None]
        keys, weights = definition.top(listed, asked.top)
        outputs["top_keys"][...], outputs["top_weights"][...] = np.where(keys < 0, keys, keys + asked.begin), weights
    if "shares" in outputs:
        outputs["shares"][...] = asked.shares(a)
