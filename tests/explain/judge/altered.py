"""Another formula in place of the right one, worked out from the vectors alone: its weights and its output."""

import numpy as np

from tests.explain.judge.ranges import DENORMAL, Range
from tests.explain.judge.truth import FINE, Ends, Truth, total


def altered(truth: Truth, name: str) -> tuple[Ends, Ends]:
    """The weights and the output of another formula, each end."""
    if name in ("no-scale", "divide-by-d", "keys=values", "no-mask"):
        other = another(truth, name)
        return other.weights, other.output
    if name == "no-values":
        return truth.weights, tuple(end[truth.seen] for end in truth.weights)
    if name == "values=keys":
        return truth.weights, mixed(truth, truth.weights, truth.keys)
    if name == "mask-after-softmax":
        everything = another(truth, "no-mask").weights
        ends = tuple(np.where(truth.seen, end, 0.0) for end in everything)
        return ends, mixed(truth, ends, truth.values)
    scores = tuple(np.where(truth.seen, end, 0.0) for end in truth.scaled)
    if name == "no-softmax":
        return scores, mixed(truth, scores, truth.values)
    ends = divided(scores, total(scores, truth.items))
    return ends, mixed(truth, ends, truth.values)


def another(truth: Truth, name: str) -> Truth:
    """The same row with another scale, mask or other keys."""
    scale = {"no-scale": 1.0, "divide-by-d": 1 / truth.d}.get(name, truth.scale)
    keys = truth.values if name == "keys=values" else truth.keys
    other = Truth(truth.x, truth.i, ("full",), keys=keys, values=truth.values, scale=scale)
    if name != "no-mask":
        other.seen, other.items, other.reach = truth.seen, truth.items, truth.reach
    return other


def divided(ends: Ends, by: Range) -> Ends:
    """Numbers over a sum, which is no number that 0 may be."""
    if by.lo <= 0 <= by.hi:
        return np.full_like(ends[0], -np.inf), np.full_like(ends[1], np.inf)
    with np.errstate(all="ignore"):
        made = np.stack([end / one for end in ends for one in (by.lo, by.hi)])
    return made.min(axis=0), made.max(axis=0)


def mixed(truth: Truth, weights: Ends, values: np.ndarray) -> Ends:
    """The sum of what is seen by some weights."""
    with np.errstate(all="ignore"):
        parts = np.stack([end[truth.seen, None] * values[truth.seen] for end in weights])
        slack = truth.n * FINE * np.abs(parts).max(axis=0).sum(axis=0) + truth.n * DENORMAL
        ends = parts.min(axis=0).sum(axis=0) - slack, parts.max(axis=0).sum(axis=0) + slack
    return np.nan_to_num(ends[0], nan=-np.inf), np.nan_to_num(ends[1], nan=np.inf)
