"""What sums are of: the queries' place and the rules, kept beside sums so that no other call goes on with them."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.inputs import Rules
from clearhead.engine.problem import check_scale
from clearhead.errors import DtypeError, InputError
from clearhead.rules.document_masks import Documents
from clearhead.rules.expression import Formula
from clearhead.rules.mask_kinds import Full, conjunction
from clearhead.rules.placement import placed_at
from clearhead.rules.scores import as_rules

SAMPLE = 1024  # numbers of a table that count towards the digest, evenly spread; of smaller ones, all


class Origin(NamedTuple):
    """Where queries stand, and a digest of mask, score rules and scale."""

    at: int | None
    rules: str

    @classmethod
    def of(cls, q: Array, rules: Rules) -> "Origin":
        """The origin of sums of some queries under some rules."""
        dim = q.shape[-1] if q.ndim else 1
        scale = check_scale(max(1, dim) ** -0.5 if rules.scale is None else rules.scale)
        masks = sorted({digest_of(x) for x in conjunction(rules.mask) if not isinstance(x, Full)})
        text = repr((scale, masks, [digest_of(x) for x in as_rules(rules.score)]))
        return cls(placed_at(rules.mask), hashlib.sha256(text.encode()).hexdigest()[:16])

    def check(self, now: "Origin", whose: str) -> None:
        """Raise InputError if sums of this origin are to meet those of another one."""
        check_same("queries that begin at position", self.at, now.at, whose)
        if self.rules != now.rules:
            raise InputError(f"{whose} was computed under another mask, score or scale: give the same ones throughout.")


def digest_of(rule: Any) -> str:
    """A digest of what a mask or score rule computes, wherever queries stand; of large tables, of a sample."""
    if isinstance(rule, Documents):  # its formula is a table of all items
        return repr((rule.lengths, rule.queries))
    formula: Formula = rule.formula
    digest = hashlib.sha256(formula.expression.digest)
    for array in formula.arrays:
        numbers = np.atleast_1d(array)
        places = np.linspace(0, max(0, numbers.size - 1), min(numbers.size, SAMPLE)).astype(np.int64)
        sample = numbers[np.unravel_index(places, numbers.shape)] if numbers.size else numbers
        digest.update(f"{array.dtype} {array.shape}".encode() + sample.tobytes())
    return digest.hexdigest()


def check_same(what: str, own: object, now: object, whose: str) -> None:
    """Raise InputError if sums so far and those to come differ in what they are of."""
    if own != now:
        kind = DtypeError if isinstance(own, np.dtype) else InputError
        raise kind(f"{whose} is of {what} {own}, this call of {now}: go on with the same.")
