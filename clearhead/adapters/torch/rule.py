"""Masks and score rules as an operator takes them: a name for what they do, and the tensors that they read.

Decides how rules are divided into structure, which is kept under its name and may stand in a compiled graph, and
tables, which are operands of every call like q, k and v; so they have gradients and batches as those do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property, reduce
from hashlib import blake2b
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError
from clearhead.rules.expression import Expression, Formula, parts, renumber, rewrite
from clearhead.rules.masks import Causal, Documents, Full, Mask, Where, Window, conjunction
from clearhead.rules.scores import Score

Array = npt.NDArray[Any]
MOST_FILLED = 64  # rules that stay ready with the tables they were last called with


@dataclass(frozen=True, eq=False)
class Given(Score):
    """A score rule that is a formula from the start."""

    given: Formula

    @property
    def formula(self) -> Formula:
        """What was given."""
        return self.given


@dataclass(frozen=True)
class Rule:
    """What masks and scores do, arrays taken out: expressions name them by number."""

    masks: tuple[Mask, ...]  # those that a kernel knows as loops: causal, window, documents
    seen: Expression | None = None  # what must hold beside
    score: Expression | None = None

    @cached_property
    def name(self) -> str:
        """Equal names are equal meaning."""
        masks = [(type(mask).__name__, *astuple(mask)) for mask in self.masks]  # type: ignore[call-overload]
        expressions = [x and x.digest.hex() for x in (self.seen, self.score)]
        return blake2b(repr((masks, expressions)).encode(), digest_size=12).hexdigest()

    @cached_property
    def leaves(self) -> frozenset[str]:
        """What the expressions read."""
        return frozenset().union(*(x.leaves for x in (self.seen, self.score) if x))

    @cached_property
    def read_by_score(self) -> tuple[int, ...]:
        """The tables that the score reads, in order."""
        return read(self.score) if self.score else ()

    def filled(self, tables: Sequence[Array]) -> tuple[Mask, tuple[Score, ...]]:
        """Mask and score rules that read these arrays."""
        if not tables:
            return self.bare
        if self.seen is not None:  # which blocks a mask hides depends on what its tables hold now
            return self.made(tables)
        key = (self.name, *((x.ctypes.data, x.shape, x.strides, x.dtype) for x in tables))
        made = filled.get(key)
        if made is None:
            made = filled[key] = self.made(tables)
            if len(filled) > MOST_FILLED:
                filled.popitem(last=False)
        return made

    @cached_property
    def bare(self) -> tuple[Mask, tuple[Score, ...]]:
        """Mask and score rules without arrays."""
        return self.made(())

    @property
    def bare_masks(self) -> Mask:
        """The masks that a kernel knows as loops, joined."""
        return reduce(and_, self.masks) if self.masks else Full()

    def made(self, tables: Sequence[Array]) -> tuple[Mask, tuple[Score, ...]]:
        """Fresh mask and score rules."""
        mask = self.bare_masks
        if self.seen is not None:
            mask &= Where(np.where, compact(self.seen, tables))
        score = () if self.score is None else (Given(compact(self.score, tables)),)
        return mask, score


rules: dict[str, Rule] = {}
filled: OrderedDict[tuple[Any, ...], tuple[Mask, tuple[Score, ...]]] = OrderedDict()


def registered(rule: Rule) -> Rule:
    """The rule kept under its name."""
    return rules.setdefault(rule.name, rule)


def rule_named(name: str) -> Rule:
    """The rule of that name; a graph that was saved by another process may name one that this one has not met."""
    try:
        return rules[name]
    except KeyError:
        raise InputError(f"the rule {name!r} is unknown in this process: call attention with it once, first.") from None


def divided(mask: Mask, score: Sequence[Score]) -> tuple[Rule, tuple[Array, ...]]:
    """Rules as a registered structure and the arrays they hold.

    >>> from clearhead import bias, causal, dense
    >>> rule, arrays = divided(causal() & dense(np.ones((2, 2), bool)), [bias(np.zeros((2, 2)))])
    >>> rule.masks, rule.score, [array.dtype.name for array in arrays]
    ((causal(),), (score + a1[row, key]), ['bool', 'float64'])
    """
    looped: list[Mask] = []
    rest: list[Formula] = []
    for factor in conjunction(mask):
        match factor:
            case Full():
                pass
            case Causal() | Window() | Documents():
                looped.append(factor)
            case _:
                rest.append(factor.formula)
                looped += [Window(None, None, x.align) for x in factor.parts() if isinstance(x, Causal | Window)]
    seen = reduce(lambda a, b: a.combine("and", b), rest) if rest else None
    changed = reduce(lambda first, then: then.after(first), (s.formula for s in score)) if score else None
    return joined(tuple(looped), seen, changed)


def joined(masks: tuple[Mask, ...], seen: Formula | None, score: Formula | None) -> tuple[Rule, tuple[Any, ...]]:
    """One rule of a mask's and a score's formula, whose arrays (or tensors) stand one behind the other."""
    own = seen.arrays if seen else ()
    moved = renumber(score.expression, len(own)) if score else None
    rule = Rule(masks, seen.expression if seen else None, moved)
    return registered(rule), (*own, *(score.arrays if score else ()))


def read(e: Expression) -> tuple[int, ...]:
    """The numbers of the tables that an expression reads."""
    return tuple(sorted({x.array or 0 for x in parts(e) if x.op == "load"}))


def compact(e: Expression, tables: Sequence[Array]) -> Formula:
    """A formula that holds only those tables that it reads."""
    used = read(e)
    place = {old: new for new, old in enumerate(used)}
    moved = rewrite(e, lambda x: replace(x, array=place[x.array or 0]) if x.op == "load" else None)
    return Formula(moved, tuple(tables[n] for n in used))
