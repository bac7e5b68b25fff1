"""The sentences of the worked steps, and what each of them claims."""

import re

from tests.explain.judge.names import sub, things
from tests.explain.judge.ranges import (
    NUMBER,
    Range,
    exact,
    figure,
    says,
)
from tests.explain.judge.sentences import definitions, sentence
from tests.explain.judge.zero import ZEROS

LARGEST_LOG = 709.782712893384  # exp of more than this exceeds a float64
SMALLEST_LOG = -708.3964185322641  # exp of less than this has lost digits


def opening(judge, before: str, hidden: str, name: str, at: str, *counts: str) -> None:
    truth = judge.truth
    judge.is_own(name, at)
    judge.claim("opening", judge.mask == ("causal",), "a mask decides")
    count = int(counts[0]) if counts else {"none": 0, "one": 1}[before]
    judge.holds(count == truth.i, f"{truth.i} items came before")
    judge.holds(not counts or count > 1, "1 item is said otherwise")
    judge.holds(bool(hidden) == (truth.i < truth.n - 1), "what is later")


def masked_opening(judge, name: str, at: str, mask: str) -> None:
    judge.is_own(name, at)
    judge.claim("opening", judge.mask != ("causal",), "plain causal attention")
    judge.is_mask(mask)


def each_vector(judge, dims: str, *ends: str) -> None:
    n, d = judge.truth.x.shape
    judge.claim("vector", dims == things(d, "number"), f"they have {d} dims")
    if ends:
        judge.holds(ends == (sub("x", 0), sub("x", n - 1)) and n > 1, f"there are {n} items")


def alike(judge, name: str) -> None:
    judge.is_own(name)
    judge.once("scores")


def products(judge, name: str, sums: str, result: str) -> None:
    """The first products, how many more there are, and what all come to."""
    truth = judge.truth
    *factors, more = re.fullmatch(
        rf"((?:\(?{NUMBER}\)? × \(?{NUMBER}\)?(?: \+ )?)+)(?:… \((\d+ [a-z ]+)\))?", sums
    ).groups()
    terms = [
        re.fullmatch(rf"\(?({NUMBER})\)? × \(?({NUMBER})\)?", term).groups()
        for term in factors[0].removesuffix(" + ").split(" + ")
    ]
    judge.holds(len(terms) == min(3, truth.d), f"there are {truth.d} products")
    judge.holds(more == (things(truth.d - 3, "more product") if truth.d > 3 else None), f"there are {truth.d} products")
    judge.holds(all((term[0] == "-") == (f"({term})" in sums) for pair in terms for term in pair), "brackets")

    def fits(j: int) -> None:
        judge.holds(j in truth.items, "it is not seen")
        for k, pair in enumerate(terms):
            for what, i in zip(pair, (truth.i, j), strict=True):
                says(what, exact(float(truth.x[i, k])), f"dim {k} of item {i}")
        says(result, judge.dot(j), f"the dot product with item {j}")

    judge.one_of(name, fits)
    if truth.d <= 3:
        left = Range(0, 0)
        for a, b in terms:
            left = left + figure(a) * figure(b)
        judge.equation(left, result, sums)
    judge.once("products")


def becomes(judge, name: str, at: str, before: str, after: str) -> None:
    stage = judge.rule_here()
    j = int(at)
    judge.holds(j in judge.names.who(name) and j in judge.truth.items, "no seen item of this name stands there")
    says(before, judge.truth.score(j, stage) if stage else judge.dot(j), "the score before the rule")
    says(after, judge.truth.score(j, stage + 1), "the score after the rule")
    judge.once(f"rule {stage}")


def mask_sees(judge, name: str, at: str, seen: str, items: str, mask: str) -> None:
    judge.is_own(name, at)
    judge.is_mask(mask)
    truth = judge.truth
    judge.claim("mask", items == things(truth.n, "item"), f"there are {truth.n} items")
    judge.holds(seen == (str(len(truth.items)) if truth.items else "none"), f"it sees {len(truth.items)}")


def hidden(judge, names: str) -> None:
    out = [j for j in range(judge.truth.n) if not judge.truth.seen[j]]
    judge.holds(bool(out), "nothing is hidden")
    labels = [f"“{judge.names.labels[j]}” (item {j})" for j in out]
    judge.lists(names, labels, unique=False)
    judge.once("hidden")


def positive(judge, infinite: bool) -> None:
    judge.holds(infinite == (int(judge.truth.in_softmax.sum()) < len(judge.truth.items)), "whether a score is −∞")
    judge.once("positive")


def their_sum(judge, value: str) -> None:
    says(value, judge.sum, "the sum of the exponentials")
    judge.once("softmax")


def one_weight(judge, name: str, score: str, exponential: str, *division: str) -> None:
    truth, shift = judge.truth, judge.shift
    again, divisor, weight = division

    def fits(j: int) -> None:
        judge.holds(j in truth.items, "it is not seen")
        own = truth.score(j) if truth.rules else judge.dot(j)
        says(score, Range(own.lo - shift, own.hi - shift), f"the score of item {j} less {shift}")
        says(exponential, judge.exponential(j), f"the exponential of item {j}")
        says(weight, truth.weight(j), f"the weight of item {j}")

    judge.one_of(name, fits)
    says(divisor, judge.sum, "the sum of the exponentials")
    judge.once("one weight")
    judge.holds(exponential == again, "two numbers for one")
    judge.equation(figure(score).exp(), exponential, f"exp({score})")
    judge.equation(figure(again) / figure(divisor), weight, f"{again} ÷ {divisor}")


def shifted(judge, why: str, *numbers: str) -> None:
    """Why the largest score is subtracted, and that it is."""
    truth = judge.truth
    says(numbers[-1], truth.top, "the largest score")
    judge.claim("shift", bool(judge.shift), "nothing is subtracted")
    of = figure(numbers[0])
    if why == "large":
        judge.holds(of.hi >= LARGEST_LOG - 1e-9, f"exp({numbers[0]}) fits into a float64")
    elif why == "sum":
        judge.holds(truth.log_sum.hi >= LARGEST_LOG - 1e-9, "the sum fits into a float64")
    else:
        judge.holds(of.lo <= SMALLEST_LOG + 1e-9, f"exp({numbers[0]}) fits into a float64")
        judge.holds(any(truth.score(j).meets(of) for j in truth.items), "no item has such a score")


def the_output(judge, y: str) -> None:
    judge.claim("sum", y == sub("y", judge.truth.i), "another item's")


def shown_dims(judge, *found: str) -> None:
    first, dims = (1, found[0]) if len(found) == 1 else (int(found[0]), found[1])
    judge.holds(dims == things(judge.truth.d, "dim"), f"there are {judge.truth.d} dims")
    judge.holds(first < judge.truth.d and (len(found) == 1) == (first == 1), "how many are shown")
    judge.dims = first


def goes_in(judge, how: str, name: str, x: str, y: str, *cosine: str) -> None:
    judge.is_own(name)
    truth = judge.truth
    own, others = bool(truth.in_softmax[truth.i]), int(truth.in_softmax.sum()) - bool(truth.in_softmax[truth.i])
    judge.holds((own, others > 0) == {"same": (True, False), "mixed": (True, True), "others": (False, True)}[how], how)
    judge.claim("change", (x, y) == (sub("x", truth.i), sub("y", truth.i)), "another item's")
    if cosine:
        judge.holds(not truth.zero, "the zero vector has no direction")
        says(cosine[0], truth.cosine, "the cosine")
    judge.kept["cosine"] = bool(cosine)


def no_cosine(judge, which: str) -> None:
    output = judge.json["output"]
    blank = [judge.truth.zero, not any(output)]
    judge.holds(not judge.kept["cosine"] and any(blank), "both have a direction")
    judge.holds((which == "both") == all(blank), "how many of them are zero vectors")
    judge.holds(
        all(low <= 0 <= high for low, high in zip(*judge.truth.output, strict=True)) or not blank[1], "y is not 0"
    )


def length_goes(judge, before: str, after: str) -> None:
    says(before, judge.truth.lengths[0], "the length of x")
    says(after, judge.truth.lengths[1], "the length of y")
    judge.once("length")


def rows_add_up(judge, some_empty: bool) -> None:
    empty = not all(row.in_softmax.any() for row in judge.all_rows)
    judge.holds(empty == some_empty, "whether there are rows without weights, which add up to 0")
    judge.once("rows")


def only_itself(judge) -> None:
    truth = judge.truth
    judge.claim("steady", truth.items == [truth.i], "it sees others")
    judge.holds(judge.json["output"] == truth.x[truth.i].tolist(), "it comes out otherwise")


def own_name(judge, name: str) -> None:
    judge.is_own(name)
    judge.once("nearest")


def nowhere(judge, which: str) -> None:
    truth = judge.truth
    blank = sub("x", truth.i) if truth.zero else sub("y", truth.i)
    judge.claim("nowhere", which == blank and (truth.zero or not any(judge.json["output"])), "it has a direction")


def few_new(judge, new: int) -> None:
    judge.claim("steady", judge.truth.items != [judge.truth.i], "it sees only itself")
    judge.holds(judge.kept.get("new") == new, "as many are new as the table says")


LATER = "; what comes later is hidden"
WORKED = [
    *ZEROS,
    *(
        sentence(f"<name>, item <count>, looks at itself{said}{later}.", opening, before, later)
        for later in ("", LATER)
        for before, said in (
            ("none", "; nothing came before it"),
            ("one", " and at the one item before it"),
            ("many", " and at the <count> items before it"),
        )
    ),
    sentence("<name>, item <count>, looks at what the mask <some> lets it see.", masked_opening),
    sentence("Each item is a vector of <some>, <some> to <some>.", each_vector),
    sentence("Each item is a vector of <some>.", each_vector),
    sentence("How alike are <name> and what it sees?", alike),
    sentence("For <item>: exp(<number>) = <number>, and <number> ÷ <number> = <number>.", one_weight),
    sentence("For <item>: <some> = <number>.", products),
    sentence("For <name>, item <count>: <number> becomes <number>.", becomes),
    sentence("<name>, item <count>, sees <some> of <some>, by the mask <some>.", mask_sees),
    sentence("Hidden, whatever the score: <names>.", hidden),
    sentence("exp makes every score positive.", positive, False),
    sentence("exp makes every finite score positive, and −∞ 0.", positive, True),
    sentence("Divided by their sum, <number>, they are weights that add up to 1.", their_sum),
    *(
        sentence(
            f"{reason} for a float64{more}, so the largest score, <number>, is subtracted from every score first.",
            shifted, why,
        )
        for why, reason, more in (
            ("large", "exp(<number>) is too large", ""),
            ("sum", "The sum of the exponentials is too large", ""),
            ("small", "exp(<number>) is too small", " to hold in full"),
        )
    ),
    sentence("Each vector times its weight; added up, column by column, they are the output <some>.", the_output),
    sentence("Shown: the first <count> of <some>.", shown_dims),
    sentence("Shown: the first of <some>.", shown_dims),
    *(
        sentence(f"<name> goes in as <some> and comes out as <some>, {mixed}{cosine}.", goes_in, how)
        for how, mixed in (
            ("same", "the same, for nothing else has weight"),
            ("mixed", "mixed with what it saw"),
            ("others", "mixed of what it saw, with nothing of its own"),
        )
        for cosine in (": the cosine between them is <number> (1 would be the same direction)", "")
    ),
    sentence(
        "One of them is the zero vector and has no direction, so there is no cosine between them.", no_cosine, "one"
    ),
    sentence("Both are zero vectors and have no direction, so there is no cosine between them.", no_cosine, "both"),
    sentence("The length goes from <number> to <number>.", length_goes),
    sentence("It sees only itself, so it comes out as it went in.", only_itself),
    sentence(
        "The words whose vectors point most nearly its way, one form of each, and none of <name>; (new) was not near "
        "before.",
        own_name,
    ),
    sentence("<some> is the zero vector and points nowhere, so no words are nearest to it.", nowhere),
    sentence("None of these words is new.", few_new, 0),
    sentence("Only one of these words is new.", few_new, 1),
    sentence("Row i holds the weights of item i and adds up to 1.", rows_add_up, False),
    sentence(
        "Row i holds the weights of item i and adds up to 1, or to 0 if it sees nothing, or only scores of −∞.",
        rows_add_up, True,
    ),
    *definitions(
        "Their dot product tells: it is large where both are long and point the same way.",
        "exp(−∞) = 0 is no weight at all.",
        "That divides every exponential and the sum by one and the same number: no weight changes.",
        "A dot is hidden, not 0.",
        "A word has one vector, all its senses mixed, and this step only adds up the vectors of what is seen: it can "
        "lean a word towards them, and here they lean it too little.",
        "It cannot choose which sense is meant.",
    ),
]  # fmt: skip
