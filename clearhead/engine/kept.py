"""Rules of a call over a cache: queries stand at the end, and kept keys at their positions.

Responsible for deciding which rules can be left to kernels as they are, which take a key's position from its place, and
for checking the others against the positions. `rules.moved` rewrites formulas.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from clearhead.cache.pages import Paged
from clearhead.engine.inputs import Rules, new
from clearhead.engine.problem import broadcast_heads, check_rules, packed_documents
from clearhead.rules.current import current_rules
from clearhead.rules.document_masks import Documents
from clearhead.rules.expression import Formula, immutable_copy
from clearhead.rules.fused import rows_at_positions
from clearhead.rules.mask_kinds import And, Causal, Full, Mask, checked_mask, conjunction
from clearhead.rules.masks import full, window
from clearhead.rules.moved import MovedMask, MovedScore, moved, reads_positions
from clearhead.rules.placement import at_end, placed_at, reads_query, split_documents, states_place
from clearhead.rules.scores import as_rules


def rules_over(pages: Paged, rules: Rules, query_shape: tuple[int, ...]) -> Rules:
    """The rules of a call over a cache's pages, as kernels need them; raises ShapeError or InputError.

    Full and causal masks, and rules that read no position, stay as they are.
    """
    mask, score, *others = rules
    mask = at_end(checked_mask(mask))
    if score and not states_place(mask) and any(map(reads_query, as_rules(current_rules(score)))):
        mask = mask & window(None, None, align="end")
    if pages.kept is None:
        return new(Rules, (mask, score, *others))
    factors, scores = tuple(conjunction(mask)), as_rules(current_rules(score))
    if any(isinstance(factor, Documents) for factor in factors):
        raise packed_documents(mask)
    key_lead, keys = pages.key.shape[:-2], pages.key.shape[-2]
    lead, queries = broadcast_heads(query_shape[:-2], key_lead, key_lead), query_shape[-2]
    every = keys + pages.kept[0].dropped
    check_rules(mask, scores, lead, queries, every)
    in_order = queries <= keys - max(kept.scattered for kept in pages.kept)
    if all(stays(x, in_order=in_order) for x in factors) and not any(reads_positions(x.formula) for x in scores):
        return new(Rules, (mask, scores, *others))
    group, offset = max(1, lead[-1] // max(1, key_lead[-1])), split_documents(mask, queries, every)[0][0].offset
    tables = np.arange(queries) + offset, np.stack([kept.of(0, keys) for kept in pages.kept])
    query_positions, key_positions = map(immutable_copy, tables)

    placed = placed_at(mask) is not None

    def at_positions(formula: Formula) -> Formula:
        return moved(rows_at_positions(formula) if placed else formula, query_positions, key_positions, group)

    factors = tuple(full() if isinstance(x, Full) else x for x in factors)  # positions now come from the tables
    masks = (x if stays(x, in_order=in_order) else MovedMask(x, at_positions(x.formula)) for x in factors)
    rules_there = (MovedScore(x, at_positions(x.formula)) if reads_positions(x.formula) else x for x in scores)
    return new(Rules, (reduce(And, masks), tuple(rules_there), *others))


def stays(mask: Mask, *, in_order: bool) -> bool:
    """Whether a mask means the same at places as at positions.

    It does if it hides nothing, and if it hides only later keys, where queries and later keys are `in_order`: the last
    keys of every head, without a gap.
    """
    return isinstance(mask, Full) or (in_order and isinstance(mask, Causal) and mask.align == "end")
