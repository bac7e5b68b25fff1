"""Masks and score rules as an operator takes them: a name that says what they do, and the tensors that they read.

Decides how rules are divided into structure, written out as the name, so that a graph which holds it may be saved and
run by any process, and tables, which are operands of every call like q, k and v; so they have gradients and batches as
those do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache, reduce
from operator import and_
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.bounded_cache import BoundedCache
from clearhead.once import cached_property
from clearhead.rules.expression import Expression, Formula, parts, renumber, rewrite
from clearhead.rules.masks import Causal, Documents, Full, Mask, Where, Window, conjunction
from clearhead.rules.scores import Given, Score

LOOPED = (Causal, Window, Documents)  # masks that a kernel knows as loops
MOST_RULES = 1024  # that stay ready


@dataclass(frozen=True)
class Rule:
    """What masks and scores do, arrays taken out: expressions name them by number."""

    masks: tuple[Mask, ...]  # of those that are LOOPED
    seen: Expression | None = None  # what must hold beside
    score: Expression | None = None

    @cached_property
    def name(self) -> str:
        """What it does, as `rule_named` reads it."""
        masks = [(type(mask).__name__, *astuple(mask)) for mask in self.masks]  # type: ignore[call-overload]
        return json.dumps([masks, written(self.seen), written(self.score)])

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
        known = filled.get(key)
        if known is None:
            known = self.made(tables)
            filled.keep(key, known, sum(x.nbytes for x in tables))
        return known

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


# Rules with the tables that they were last called with.
filled: BoundedCache[tuple[Any, ...], tuple[Mask, tuple[Score, ...]]] = BoundedCache(most=64)


@lru_cache(MOST_RULES)
def rule_named(name: str) -> Rule:
    """The rule that a name writes out.

    >>> rule_named(divided(Causal() & Window(5, None), ())[0].name).masks
    (causal(), window(5, None))
    """
    masks, seen, score = json.loads(name)
    kinds: dict[str, Any] = {kind.__name__: kind for kind in LOOPED}
    own = tuple(kinds[kind](*(tuple(x) if isinstance(x, list) else x for x in fields)) for kind, *fields in masks)
    return Rule(own, read_back(seen), read_back(score))


def written(e: Expression | None) -> list[Any] | None:
    """An expression's parts, arguments by their places in the list, the whole last."""
    if e is None:
        return None
    place = {part: n for n, part in enumerate(parts(e))}
    return [(part.op, part.kind, [place[a] for a in part.args], part.value, part.array) for part in place]


def read_back(written: list[Any] | None) -> Expression | None:
    """The expression again."""
    known: list[Expression] = []
    for op, kind, args, value, array in written or ():
        known.append(Expression(op, kind, tuple(known[n] for n in args), value, array))
    return known[-1] if known else None


def divided(mask: Mask, score: Sequence[Score]) -> tuple[Rule, tuple[Array, ...]]:
    """Rules as a structure and the arrays they hold.

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
            case factor if isinstance(factor, LOOPED):
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
    return rule, (*own, *(score.arrays if score else ()))


def read(e: Expression) -> tuple[int, ...]:
    """The numbers of the tables that an expression reads."""
    return tuple(sorted({x.array or 0 for x in parts(e) if x.op == "load"}))


def compact(e: Expression, tables: Sequence[Array]) -> Formula:
    """A formula that holds only those tables that it reads."""
    used = read(e)
    place = {old: new for new, old in enumerate(used)}
    moved = rewrite(e, lambda x: replace(x, array=place[x.array or 0]) if x.op == "load" else None)
    return Formula(moved, tuple(tables[n] for n in used))
