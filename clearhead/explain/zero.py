"""The sentences on a dot product of 0, which is not a weight of 0: the main point of the lesson, and easy to get wrong.

Responsible for the words on items at right angles, zero vectors, underflow and scores of −∞. Not for the numbers, which
are in `steps`.
"""

import math
from collections.abc import Sequence

import numpy as np

from clearhead.explain.blocks import Block, Prose
from clearhead.explain.rows import item_reference
from clearhead.explain.steps import Explanation
from clearhead.wording import label, listed, number, percent, quoted


def zero_score(e: Explanation) -> list[Block]:
    """The paragraph on dot product 0, with the items that have it or with one that would."""
    if not e.query.any():
        return [Prose(zero_vector(e), strong=True)]
    present = [*at_right_angles(e), *zero_vector_items(e)]
    if present:
        sentences = " ".join([present[0], *(text[0].upper() + text[1:] for text in present[1:])])
        return [Prose(f"{zero_rule(e)} {sentences}", strong=True)]
    return [Prose(f"{zero_rule(e)} {no_zero_text(e)}")]


def zero_rule(e: Explanation) -> str:
    """The lesson's rule; with score rules in between, the score is no longer the dot product."""
    return "Dot product 0 is not weight 0:" if e.rules else "Score 0 is not weight 0:"


def zero_vector(e: Explanation) -> str:
    """The paragraph for an item that is the zero vector: all dot products are 0."""
    if e.rules:
        return (
            f"{zero_rule(e)} {asker_name(e)} is the zero vector, so every dot product is 0, and the rules alone decide "
            "the weights."
        )
    n = len(e.items)
    each = f"exp(0) = 1, and 1 ÷ {n:,} = {number(1 / n)}, {percent(1 / n)}"
    return f"{zero_rule(e)} {asker_name(e)} is the zero vector, so every score is 0 and all weights are equal: {each}."


def at_right_angles(e: Explanation) -> list[str]:
    """A sentence on the items at right angles, if there are any."""
    if not e.angles:
        return []
    verb = "is" if one_name(e, e.angles) else "are"
    angle = f"at right angles to {asker_name(e)}"
    return [f"{compared_names(e, e.angles)} {verb} {angle}{weights_text(e, e.angles)}"]


def zero_vector_items(e: Explanation) -> list[str]:
    """A sentence on the items whose vector is zero, if there are any."""
    if not e.blank:
        return []
    verb = "is the zero vector" if one_name(e, e.blank) else "are zero vectors"
    return [f"{compared_names(e, e.blank)} {verb}, whose dot product with anything is 0{weights_text(e, e.blank)}"]


def weights_text(e: Explanation, items: tuple[int, ...]) -> str:
    """The items' weights: without rules all equal, exp(0) over the sum."""
    if e.rules:
        j = max(items, key=lambda j: e.weights[j])
        whose = "" if len(items) == 1 else f" for {item_reference(e, j)}"
        numbers = f"score {number(e.scores[j])}, weight {number(e.weights[j])}"
        return f"; what weight that makes, the rules decide:{whose} {numbers}."
    has = ", and yet has weight:" if one_name(e, items) else ", and yet have weight:"
    each = ", each" if len(items) > 1 else ""
    share = float(e.weights[items[0]])
    if not share:
        return f"{has} {exp_of_zero(e)} is positive, though here too small for a float64."
    return f"{has} {exp_of_zero(e)} ÷ {number(e.sum)} = {number(share)}, {percent(share)} of the whole{each}."


def exp_of_zero(e: Explanation) -> str:
    """The exponential of a score of 0."""
    return f"exp(0 − {number(e.shift)})" if e.shift else "exp(0) = 1, and 1"


def no_zero_text(e: Explanation) -> str:
    """The sentence where no item has dot product 0: the weight that such an item would get."""
    one_dim = e.x.shape[1] == 1  # then only the zero vector has dot product 0
    query = "it" if e.operands.alike else "its query"
    if e.rules:
        kind = "a zero vector" if one_dim else f"at right angles to {query}"
        get = "such an item would get whatever weight the rules make of 0"
        return f"nothing that {quoted(e.token)} sees is {kind}; {get}."
    item = f"a zero vector, added to what {quoted(e.token)} sees, would get"
    if not one_dim:
        what = "an item" if e.operands.alike else "a key"
        item = f"{what} at right angles to {asker_name(e)}, added to what it sees, would get"
    others, share = e.sum * math.exp(min(e.shift, 0.0)), weight_of_one_more(e)
    if not others:
        return f"{item} nearly all the weight: exp(0) = 1, and all others together are too small for a float64."
    item += " weight:"
    if e.shift > 0:
        if not share:
            return f"{item} exp(0 − {number(e.shift)}) is positive, though here too small for a float64."
        total = number(e.sum + math.exp(-e.shift))
        return f"{item} exp(0 − {number(e.shift)}) ÷ {total} = {number(share)}.{nearest_zero(e)}"
    sums = f"1 ÷ ({number(others)} + 1) = {number(share)}, {percent(share)} of the whole"
    return f"{item} exp(0) = 1, and {sums}.{nearest_zero(e)}"


def weight_of_one_more(e: Explanation) -> float:
    """The weight of an item of score 0 if it were added to the visible ones."""
    if e.shift > 0:
        one = math.exp(-e.shift)
        return one / (e.sum + one)
    return 1 / (e.sum * math.exp(e.shift) + 1)


def nearest_zero(e: Explanation) -> str:
    """The other item whose score is nearest to 0."""
    others = [j for j in e.items if j != e.itself]
    if not others:
        return ""
    j = min(others, key=lambda j: abs(e.scores[j]))
    numbers = f"score {number(e.scores[j])}, weight {number(e.weights[j])}"
    if len(others) == 1:
        return f" Here {item_reference(e, j)} has {numbers}."
    return f" Of the others here, {item_reference(e, j)} has the score nearest to 0: {numbers}."


def lost_score(e: Explanation) -> list[Block]:
    """A warning about dot products that underflow to 0."""
    lost = [j for j in e.items if e.stages[0][j] == 0 and j not in e.zeros]
    if not lost:
        return []
    those = "that of {} is" if one_name(e, lost) else "those of {} are"
    what = f"{those.format(quoted_items(e, lost))} not 0, but too small for a float64"
    return [Prose(f"Dot product 0 is underflow here: {what}.", True)]


def lost_weight(e: Explanation) -> list[Block]:
    """Warnings about visible items with weight 0: by a rule's −∞, or by underflow."""
    hidden = [j for j in e.items if np.isneginf(e.scores[j])]
    lost = [j for j in e.items if e.weights[j] == 0 and j not in hidden]
    page: list[Block] = []
    if hidden:
        score = "score" if one_name(e, hidden) else "scores"
        page.append(Prose(f"A rule made the {score} of {quoted_items(e, hidden)} −∞: exp(−∞) = 0, no weight.", True))
    if lost:
        weight = "the weight of {} is" if one_name(e, lost) else "the weights of {} are"
        what = f"{weight.format(quoted_items(e, lost))} positive, but too small for a float64"
        page.append(Prose(f"Weight 0 is underflow here: {what}.", True))
    return page


def no_weight(e: Explanation) -> list[Block]:
    """The paragraph for a query that sees no key, or whose scores are all −∞."""
    why = f"The rules make every score of {quoted(e.token)} −∞" if e.items else f"{quoted(e.token)} sees nothing"
    return [Prose(f"{why}: there are no weights, and by definition its output is 0.", strong=True)]


def asker_name(e: Explanation) -> str:
    """The name of the dot products' left side: the item in the first approach, otherwise its query."""
    return quoted(e.token) if e.operands.alike else f"the query of {quoted(e.token)}"


def compared_names(e: Explanation, items: Sequence[int]) -> str:
    """The name of the dot products' right side: items in the first approach, otherwise their keys."""
    names = quoted_items(e, items)
    if e.operands.alike or e.operands.keys is e.operands.values:
        return names
    return f"the {'key' if one_name(e, items) else 'keys'} of {names}"


def one_name(e: Explanation, items: Sequence[int]) -> bool:
    """Whether all the items have the same name."""
    return len({label(e.tokens[j]) for j in items}) == 1


def quoted_items(e: Explanation, items: Sequence[int]) -> str:
    """The items' names in a sentence, each once."""
    return listed(list(dict.fromkeys(quoted(e.tokens[j]) for j in items)))
