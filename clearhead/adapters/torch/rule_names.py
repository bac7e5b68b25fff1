"""Masks and score rules as operator arguments: a name that spells out what they do, and the tensors they read.

Responsible for splitting rules into structure and tables. The structure is serialized as the name, so a saved graph
runs in any process. Tables are operands of each call like q, k and v, and so have gradients and vmap batches.
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
from clearhead.rules.document_masks import Documents
from clearhead.rules.expression import Expression, Formula, immutable_copy, parts, renumber, rewrite
from clearhead.rules.mask_kinds import Causal, Full, Mask, Where, Window, conjunction
from clearhead.rules.scores import Given, Score

LOOPED = (Causal, Window, Documents)  # masks that kernels implement as loop bounds
MOST_RULES = 1024  # cached rules


@dataclass(frozen=True)
class Rule:
    """Masks and score without their arrays, which expressions refer to by number."""

    masks: tuple[Mask, ...]  # of the LOOPED types
    seen: Expression | None = None  # further condition for visible pairs
    score: Expression | None = None

    @cached_property
    def name(self) -> str:
        """The serialized rule, which `rule_named` reads."""
        masks = [(type(mask).__name__, *astuple(mask)) for mask in self.masks]  # type: ignore[call-overload]
        return json.dumps([masks, serialized(self.seen), serialized(self.score)])

    @cached_property
    def leaves(self) -> frozenset[str]:
        """The leaves that the expressions read."""
        return frozenset().union(*(x.leaves for x in (self.seen, self.score) if x))

    @cached_property
    def read_by_score(self) -> tuple[int, ...]:
        """The tables that the score reads, in order."""
        return loaded_tables(self.score) if self.score else ()

    @cached_property
    def block_tables(self) -> frozenset[int]:
        """The tables that the mask reads by quotients of positions, each number for many pairs."""
        loads = [x for x in parts(self.seen) if x.op == "load"] if self.seen else []
        return frozenset(x.array or 0 for x in loads if any(index.op == "floordiv" for index in x.args))

    def filled(self, tables: Sequence[Array]) -> tuple[Mask, tuple[Score, ...]]:
        """Mask and score rules that read these arrays."""
        if not tables:
            return self.bare
        if self.block_tables:  # their current content tells which blocks the mask hides
            return self.made([immutable_copy(x) if n in self.block_tables else x for n, x in enumerate(tables)])
        key = (self.name, *((x.ctypes.data, x.shape, x.strides, x.dtype) for x in tables))
        known = filled_rules.get(key)
        if known is None:
            known = self.made(tables)
            filled_rules.keep(key, known, sum(x.nbytes for x in tables))
        return known

    @cached_property
    def bare(self) -> tuple[Mask, tuple[Score, ...]]:
        """Mask and score rules without arrays."""
        return self.made(())

    @property
    def bare_masks(self) -> Mask:
        """The LOOPED masks, joined."""
        return reduce(and_, self.masks) if self.masks else Full()

    @cached_property
    def indices(self) -> tuple[int, ...]:
        """The tables of whole numbers that say where others are read, or what is divided by."""
        everything = [x for e in (self.seen, self.score) if e for x in parts(e)]
        places = {a for x in everything if x.op in ("load", "floordiv", "mod") for a in x.args if a.kind == "int"}
        return tuple(sorted({x.array or 0 for a in places for x in parts(a) if x.op == "load" and x.kind == "int"}))

    def made(self, tables: Sequence[Array]) -> tuple[Mask, tuple[Score, ...]]:
        """Build mask and score rules."""
        mask = self.bare_masks
        if self.seen is not None:
            mask &= Where(np.where, compact(self.seen, tables))
        score = () if self.score is None else (Given(compact(self.score, tables)),)
        return mask, score


# Rules by the tables of recent calls.
filled_rules: BoundedCache[tuple[Any, ...], tuple[Mask, tuple[Score, ...]]] = BoundedCache(most=64)


@lru_cache(MOST_RULES)
def rule_named(name: str) -> Rule:
    """Parse a name.

    >>> rule_named(split_rules(Causal() & Window(5, None), ())[0].name).masks
    (causal(), window(5, None))
    """
    masks, seen, score = json.loads(name)
    kinds: dict[str, Any] = {kind.__name__: kind for kind in LOOPED}
    looped = tuple(kinds[kind](*(tuple(x) if isinstance(x, list) else x for x in fields)) for kind, *fields in masks)
    return Rule(looped, deserialized(seen), deserialized(score))


@lru_cache(MOST_RULES)
def rule_between(name: str, limits: tuple[tuple[int, int, int], ...]) -> Rule:
    """A rule some of whose tables have a known least and largest number, which proves that indices are inside others.

    `limits` are (table, least, largest).

    >>> from clearhead.rules.scores import as_rules
    >>> table, places = np.zeros(5), np.arange(5)
    >>> rule, _ = split_rules(Full(), as_rules(lambda score, batch, head, query, key: score + table[places[key]]))
    >>> rule_between(rule.name, ((0, 0, 4),)).score
    (score + a1[min(max(a0[key], 0), 4)])
    """
    known, rule = {table: ends for table, *ends in limits}, rule_named(name)

    def held(e: Expression) -> Expression | None:
        if e.op != "load" or e.array not in known:
            return None
        least, largest = (Expression("constant", "int", value=x) for x in known[e.array])
        return Expression("min", "int", (Expression("max", "int", (e, least)), largest))

    return replace(rule, seen=rule.seen and rewrite(rule.seen, held), score=rule.score and rewrite(rule.score, held))


def serialized(e: Expression | None) -> list[Any] | None:
    """Serialize an expression: its parts, with arguments by index in the list, and the expression itself last."""
    if e is None:
        return None
    index = {part: n for n, part in enumerate(parts(e))}
    return [(part.op, part.kind, [index[a] for a in part.args], part.value, part.array) for part in index]


def deserialized(written: list[Any] | None) -> Expression | None:
    """Deserialize an expression."""
    built: list[Expression] = []
    for op, kind, args, value, array in written or ():
        built.append(Expression(op, kind, tuple(built[n] for n in args), value, array))
    return built[-1] if built else None


def split_rules(mask: Mask, score: Sequence[Score]) -> tuple[Rule, tuple[Array, ...]]:
    """Split rules into a structure and their arrays.

    >>> from clearhead import bias, causal, dense
    >>> rule, arrays = split_rules(causal() & dense(np.ones((2, 2), bool)), [bias(np.zeros((2, 2)))])
    >>> rule.masks, rule.score, [array.dtype.name for array in arrays]
    ((causal(),), (score + a1[row, key]), ['bool', 'float64'])
    """
    looped: list[Mask] = []
    rest: list[Formula] = []
    for factor in conjunction(mask):
        match factor:
            case Full(at):
                looped += [Window(None, None, None, at)] if at is not None else []
            case factor if isinstance(factor, LOOPED):
                looped.append(factor)
            case _:
                rest.append(factor.formula)
                looped += [
                    Window(None, None, None if isinstance(x, Full) else x.align, x.at)
                    for x in factor.parts()
                    if isinstance(x, Causal | Full | Window)
                ]
    seen = reduce(lambda a, b: a.combine("and", b), rest) if rest else None
    changed = reduce(lambda first, then: then.after(first), (s.formula for s in score)) if score else None
    return join_rule(tuple(looped), seen, changed)


def join_rule(masks: tuple[Mask, ...], seen: Formula | None, score: Formula | None) -> tuple[Rule, tuple[Any, ...]]:
    """One rule from a mask's and a score's formula, with the arrays (or tensors) of both in order."""
    mask_arrays = seen.arrays if seen else ()
    moved = renumber(score.expression, len(mask_arrays)) if score else None
    rule = Rule(masks, seen.expression if seen else None, moved)
    return rule, (*mask_arrays, *(score.arrays if score else ()))


def loaded_tables(e: Expression) -> tuple[int, ...]:
    """The numbers of the tables that an expression reads."""
    return tuple(sorted({x.array or 0 for x in parts(e) if x.op == "load"}))


def compact(e: Expression, tables: Sequence[Array]) -> Formula:
    """A formula with only the tables that it reads."""
    used = loaded_tables(e)
    numbers = {old: new for new, old in enumerate(used)}
    moved = rewrite(e, lambda x: replace(x, array=numbers[x.array or 0]) if x.op == "load" else None)
    return Formula(moved, tuple(tables[n] for n in used))
