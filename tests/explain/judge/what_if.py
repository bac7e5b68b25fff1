"""What --what-if says: the right formula and another, both worked out anew, and what is said to follow."""

from collections.abc import Iterator

import numpy as np

from tests.explain.judge.names import things
from tests.explain.judge.pages import check_items, check_prose
from tests.explain.judge.programs import INPUTS, check_inputs, check_row, number, within
from tests.explain.judge.ranges import DENORMAL, Range, exact, figure, rounded, says
from tests.explain.judge.reading import Page, Prose, Table
from tests.explain.judge.sentences import Sentence, definitions, sentence
from tests.explain.judge.texts import NOTES, required
from tests.explain.judge.truth import FINE, Ends, Truth, total

RIGHT = ("y = softmax(scores) V", r"y = \mathrm{softmax}(\mathrm{scores})\, V")
FORMULAS = {
    "no-values": ("y = softmax(scores)", r"y = \mathrm{softmax}(\mathrm{scores})"),
    "values=keys": ("y = softmax(scores) K", r"y = \mathrm{softmax}(\mathrm{scores})\, K"),
    "keys=values": ("y = softmax(Q Vᵀ) V", r"y = \mathrm{softmax}(Q V^{T})\, V"),
    "no-softmax": ("y = scores · V", r"y = \mathrm{scores}\, V"),
    "scores-as-weights": ("y = scores ÷ Σ scores · V", r"y = (\mathrm{scores} / \sum \mathrm{scores})\, V"),
    "no-scale": ("y = softmax(Q Kᵀ) V", r"y = \mathrm{softmax}(Q K^{T})\, V"),
    "divide-by-d": ("y = softmax(Q Kᵀ ÷ d) V", r"y = \mathrm{softmax}(Q K^{T} / d)\, V"),
    "mask-after-softmax": (
        "y = mask(softmax(scores)) V", r"y = \mathrm{mask}(\mathrm{softmax}(\mathrm{scores}))\, V",
    ),
    "no-mask": ("y = softmax(scores of all) V", r"y = \mathrm{softmax}(\mathrm{scores\ of\ all})\, V"),
}  # fmt: skip
MOST = 32  # rows
SEEN = 1e-4  # a change that four decimals show for sure


def headings(name: str) -> list[tuple[str, str | None, str | None]]:
    """The headings and formulas of a page."""
    return [("", None, None), ("The right formula", *RIGHT), ("Another", *FORMULAS[name])]


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


def refused(judge, name: str, message: str) -> None:
    """Why there is no such page."""
    truth = judge.truth
    empty = not truth.items and "empty mask" in message
    narrow = name == "keys=values" and truth.values.shape[1] != truth.d and "cannot be compared" in message
    if empty or narrow or truth.too_large:
        return
    (low, high), y = altered(truth, name)
    with np.errstate(all="ignore"):
        sizes = [np.abs(np.concatenate([low, high, *y])).max(), np.abs(high).sum(), np.abs(y[1]).sum()]
    judge.holds("exceed" in message and max(sizes) > 1e307, f"refused for no reason: {message}")


def check_what_if(judge, page: Page) -> None:
    """The page and its JSON."""
    name = judge.what
    judge.kept["other"] = altered(judge.truth, name)
    check_json(judge, name)
    judge.holds(page.title == f"What if: {name}", f"the title is {page.title!r}")
    check_items(judge, page.items, judge.truth.i)
    expected = [(heading, latex) for heading, _, latex in headings(name)]
    judge.holds([(one.heading, one.formula) for one in page.sections] == expected, "headings or formulas")
    for block in page.sections[0].blocks:
        check_prose(judge, block.text, NOTES)
    weights, outputs, consequence = page.sections[2].blocks
    judge.holds(not page.sections[1].blocks and isinstance(consequence, Prose) and consequence.strong, "other blocks")
    judge.holds(consequence.text == judge.json["consequence"], "JSON says another consequence")
    weight_table(judge, name, weights)
    output_table(judge, outputs)
    check_prose(judge, consequence.text, SENTENCES[name])
    judge.says_all(*required(judge), "follows")


def check_json(judge, name: str) -> None:
    """Both weights and outputs."""
    made, truth = judge.json, judge.truth
    keys = ["what_if", "tokens", "position", "scores", "formula", "right", "altered", "consequence", "notes"]
    judge.holds([key for key in made if key not in INPUTS] == keys, f"entries {list(made)}")
    judge.holds(
        (made["what_if"], made["tokens"], made["position"]) == (name, judge.tokens, truth.i), "tokens or position"
    )
    judge.holds(made["formula"] == FORMULAS[name][0], "the formula")
    check_inputs(judge, made)
    check_row(judge, "scores", made["scores"], truth.score)
    for which, (weights, output) in {"right": (truth.weights, truth.output), "altered": judge.kept["other"]}.items():
        for what, told, ends in (
            ("weights", made[which]["weights"], weights),
            ("output", made[which]["output"], output),
        ):
            judge.holds(len(told) == len(ends[0]), f"{which} {what} are {len(told)}")
            for at, value in enumerate(told):
                within(value, Range(float(ends[0][at]), float(ends[1][at])), f"{which} {what} {at}")


def weight_table(judge, name: str, table: Table) -> None:
    truth, made = judge.truth, judge.json
    judge.holds(table.head == ["j", "item", "score", "weight", f"what if: {name}"], "other columns")
    right, other = (np.array([number(v) for v in made[which]["weights"]]) for which in ("right", "altered"))
    due = [j for j in range(truth.n) if truth.seen[j] or other[j]]
    rows = {int(row[0]): row for row in table.rows if row[0]}
    judge.holds(list(rows) == sorted(rows) and set(rows) <= set(due), "items out of order, or not seen")
    judge.holds(len(rows) == min(len(due), MOST), "how many rows")
    for j, (_, item, score, weight, what) in rows.items():
        own = judge.names.marked(j) + (" (itself)" if j == truth.i else "")
        judge.holds(item == own, f"item {j} is called {item!r}")
        says(score, exact(0.0) if truth.angles.get(j) else truth.score(j), f"the score of item {j}")
        judge.holds((weight == "hidden") == (not truth.seen[j]), f"whether item {j} is hidden")
        if weight != "hidden":
            rounded(weight, right[j], f"the weight of item {j}")
        rounded(what, other[j], f"the other weight of item {j}")
    rest = [j for j in due if j not in rows]
    more = [row for row in table.rows if not row[0]]
    judge.holds(len(more) == bool(rest), "a row for all others")
    if rest:
        judge.holds(more[0][1:3] == [f"… {len(rest)} more", ""], f"{len(rest)} others")
        for cell, values in zip(more[0][3:], (right, other), strict=True):
            rounded(cell, float(values[rest].sum()), "the weights of the others")
    judge.holds(table.total is not None and table.total[:3] == ["", "sum", ""], "no sums")
    for cell, values in zip(table.total[3:], (right, other), strict=True):
        says(cell, around(values.sum(), np.abs(values).sum()), "the sum of the weights")


def around(value: float, size: float) -> Range:
    """A sum, whatever the order in which it was added."""
    return Range(float(value - FINE * size), float(value + FINE * size))


def output_table(judge, table: Table) -> None:
    judge.holds(table.head == ["y", "its numbers", "count", "length"] and not table.total, "other columns")
    judge.holds([row[0] for row in table.rows] == ["right", "what if"], "other rows")
    for row, which in zip(table.rows, ("right", "altered"), strict=True):
        output = [number(value) for value in judge.json[which]["output"]]
        judge.holds(row[2] == f"{len(output):,}", f"{len(output)} numbers")
        cells = row[1].removesuffix(", …").split(", ")
        judge.holds(row[1].endswith(", …") == (len(cells) < len(output)), f"{which}: {row[1]!r}")
        for k, cell in enumerate(cells):
            rounded(cell, output[k], f"{which} at dim {k}")
        says(row[3], long(output), f"the length of the {which} output")


def long(output: list[float]) -> Range:
    """The length of a vector."""
    length = float(np.sqrt((np.array(output, np.longdouble) ** 2).sum()))
    return around(length, length)


def follows(judge) -> None:
    judge.told["follows"] = 1


def nothing_changes(judge, so: str) -> None:
    """Nothing changes: the reason holds, and the weights and outputs are the same."""
    truth = judge.truth
    reasons = {
        "one": truth.keys is truth.values,
        "first": truth.x is truth.keys and truth.scale == 1,
        "no scale": truth.scale == 1 and truth.x is not truth.keys,
        "d is 1": truth.d == 1,
    }
    judge.holds(reasons[so], "this is not why")
    for what in ("weights", "output"):
        for a, b in zip(judge.json["right"][what], judge.json["altered"][what], strict=True):
            judge.holds(abs(number(a) - number(b)) <= 1e-9 * abs(number(a)) + DENORMAL, f"{what} change")
    follows(judge)


def all_seen(judge, name: str) -> None:
    judge.is_own(name)
    judge.holds(bool(judge.truth.seen.all()), "something is hidden")
    follows(judge)


def earlier(judge) -> None:
    truth = judge.truth
    judge.holds(judge.mask == ("causal",) and truth.i == truth.n - 1 > 0, "an earlier position hides nothing")


def where_to_look(judge, counted: str) -> None:
    judge.holds(counted == things(len(judge.truth.items), "weight"), f"{len(judge.truth.items)} are seen")
    judge.holds(len(judge.json["altered"]["output"]) == len(judge.truth.items), "another output")
    follows(judge)


def all_shapes(judge, *sizes: str) -> None:
    n, dv = judge.truth.n, judge.truth.values.shape[1]
    judge.holds([*map(int, sizes)] == [n, n, n, dv], f"the shapes are of {n} and {dv}")


def gets_keys(judge, name: str) -> None:
    judge.is_own(name)
    judge.holds(judge.truth.keys is not judge.truth.values, "keys are values")
    follows(judge)


def adds_up(judge, one: bool, value: str, *negative: str) -> None:
    """The sum of what are no weights, and which of them are negative."""
    weights = np.array([number(v) for v in judge.json["altered"]["weights"]])
    says(value, around(weights.sum(), np.abs(weights).sum()), "the sum")
    judge.holds(one == (value == "1.0000"), "whether they add up to 1")
    below = np.flatnonzero(weights < 0)
    judge.holds(len(below) == (0 if not negative else int(negative[0]) if len(negative) > 1 else 1), f"{len(below)}")
    if negative:
        judge.one_of(negative[-1], lambda j: judge.holds(weights[j] <= weights.min() * (1 - 1e-9), "another is lower"))
    follows(judge)


def both_lengths(judge, other: str, right: str) -> None:
    for cell, which in ((other, "altered"), (right, "right")):
        says(cell, long([number(v) for v in judge.json[which]["output"]]), f"the length of the {which} output")


def no_sum(judge) -> None:
    low, high = judge.truth.scaled
    together, size = total((low, high), judge.truth.items), float(np.abs(high[judge.truth.items]).sum())
    judge.holds(together.lo <= 1e-11 * size and together.hi >= -1e-11 * size, "they do not add up to 0")
    judge.holds(not any(judge.json["altered"]["weights"]), "there are weights")
    judge.kept["other"] = (np.zeros(judge.truth.n),) * 2, (np.zeros(judge.truth.values.shape[1]),) * 2
    follows(judge)


def has_zeros(judge) -> None:
    truth = judge.truth
    judge.holds(truth.zero or bool(truth.blank) or any(t is not False for t in truth.angles.values()), "none has")


def largest(judge, prefix: str, form: str, *found: str) -> None:
    """What becomes of the largest weight."""
    right, other = (np.array([number(v) for v in judge.json[w]["weights"]]) for w in ("right", "altered"))
    found = PREFIXES[prefix][1](judge, *found)
    change = float(np.abs(right - other).max())
    judge.holds(change < SEEN if form == "none" else change > SEEN / 4, f"a weight changes by {change}")
    if form == "none":
        follows(judge)
        return

    def was(j: int) -> None:
        judge.holds(right[j] >= right.max() * (1 - 1e-9), f"item {j} has not the largest weight")
        rounded(found[1], right[j], "the largest weight")
        rounded(found[2], other[j], "what becomes of it")
        judge.holds(form == "more" or figure(found[2]).meets(exact(other.max())), "another has more now")

    def now(j: int) -> None:
        judge.holds(other[j] >= other.max() * (1 - 1e-9) and found[4] != found[2], f"item {j} has not the most")
        rounded(found[4], other[j], "the largest weight now")

    judge.one_of(found[0], was)
    if form == "more":
        judge.one_of(found[3], now)
    follows(judge)


def by_values(judge, name: str, *more: str) -> tuple[str, ...]:
    judge.is_own(name)
    judge.holds(judge.truth.keys is not judge.truth.values, "keys are values")
    return more


def unscaled(judge, times: str, products: str, *more: str) -> tuple[str, ...]:
    says(times, around(1 / judge.truth.scale, 1 / judge.truth.scale), "one over the scale")
    judge.holds(products == things(judge.truth.d, "product") and judge.truth.scale < 1, f"{judge.truth.d} dims")
    return more


def by_d(judge, d: str, *more: str) -> tuple[str, ...]:
    judge.holds(int(d) == judge.truth.d > 1 and judge.truth.scale > 1 / judge.truth.d, f"d is {judge.truth.d}")
    return more


def left_over(judge, counted: str, *left: str) -> None:
    truth = judge.truth
    judge.holds(counted == things(int((~truth.seen).sum()), "hidden item"), f"{int((~truth.seen).sum())} are hidden")
    weights = total(judge.kept["other"][0], truth.items)
    if left:
        says(left[0], weights, "what is left")
        judge.holds(left[0] != "1.0000", "that is 1")
    else:
        judge.holds(weights.hi > 0.99994, "that is less than a little")
    follows(judge)


def would_see(judge, later: bool, name: str, names: str, share: str) -> None:
    truth = judge.truth
    judge.is_own(name)
    hidden = np.flatnonzero(~truth.seen).tolist()
    judge.holds(bool(hidden) and later == all(j > truth.i for j in hidden), f"hidden are {hidden}")
    judge.lists(names, [f"“{judge.names.labels[j]}”" for j in hidden], unique=False)
    says(share, total(judge.kept["other"][0], hidden), "their weight")
    judge.kept["later"] = later
    follows(judge)


def bidirectional(judge) -> None:
    judge.holds(judge.kept["later"], "more than the future is hidden")


PREFIXES = {
    "values": (
        "<name> now looks for items by what they give, not by what they would be found by: ", by_values,
    ),
    "scale": (
        "Every score is <number> times as large, as a sum of <some> tends to grow, and softmax decides harder: ",
        unscaled,
    ),
    "d": ("Divided by d = <count>, scores shrink, and weights come nearer to equal: ", by_d),
}  # fmt: skip
FORMS = {
    "none": "here no weight changes to speak of.",
    "more": "the largest weight, of <item>, goes from <number> to <number>, and <item> now has the most, <number>.",
    "one": "the largest weight, of <item>, goes from <number> to <number>.",
}


def of_largest(prefix: str) -> Iterator[Sentence]:
    """A prefix and what becomes of the largest weight; another scale keeps the order of the weights."""
    for form, tail in FORMS.items():
        if form == "more" and prefix != "values":
            continue
        yield sentence(PREFIXES[prefix][0] + tail, largest, prefix, form)


def of_sums() -> Iterator[Sentence]:
    """What no weights add up to."""
    for one, end in ((False, " and not to 1"), (True, "")):
        for who in (", and <item> would be subtracted rather than added",
                    ", and <count> items, <item> most of all, would be subtracted rather than added", ""):  # fmt: skip
            yield sentence(f"They add up to <number>{end}{who}.", adds_up, one)


LENGTHS = sentence("The output has length <number>, the right one <number>.", both_lengths)
SEE_ROLES = definitions("See it where they differ: clearhead explain --roles.")
IN_ONE = [sentence("Nothing changes: here each item is key and value in one.", nothing_changes, "one"), *SEE_ROLES]
SEES_ALL = [
    sentence("Nothing changes: nothing is hidden from <name>.", all_seen),
    sentence("Try an earlier --position.", earlier),
]
SENTENCES: dict[str, list[Sentence]] = {
    "no-values": [
        sentence(
            "What comes out is <some>, one for each item that is seen: where to look, and nothing of what is there.",
            where_to_look,
        ),
        sentence(
            "For all items the shape is (<count>,<count>) in place of (<count>,<count>): a row's length is that of the "
            "input, so that no layer could follow that takes vectors of a fixed size.",
            all_shapes,
        ),
    ],
    "values=keys": [
        *IN_ONE,
        sentence(
            "<name> gets what the items are found by in place of what they give: the same weights, a mean of keys.",
            gets_keys,
        ),
        *definitions("To be found by one thing and give another, an item needs two vectors."),
    ],
    "keys=values": [*IN_ONE, *of_largest("values")],
    "no-softmax": [
        *of_sums(), LENGTHS, *definitions("Nothing keeps it from growing with the number of items."),
    ],
    "scores-as-weights": [
        *of_sums(), LENGTHS,
        sentence(
            "The scores add up to 0, and nothing can be divided by that: there are no weights, and no output.", no_sum
        ),
        sentence("An item with score 0 would have no weight at all.", has_zeros),
        *definitions("A sum of scores near 0 would blow all of them up."),
    ],
    "no-scale": [
        sentence("Nothing changes: the first approach has no scale.", nothing_changes, "first"),
        sentence("Nothing changes: the scale is 1 already.", nothing_changes, "no scale"),
        *SEE_ROLES, *of_largest("scale"),
    ],
    "divide-by-d": [
        sentence("Nothing changes: d = 1, and divided by 1 a score stays what it is.", nothing_changes, "d is 1"),
        *of_largest("d"),
        *definitions("The spread of a sum of d products grows as √d, so √d is what takes it away."),
    ],
    "mask-after-softmax": [
        *SEES_ALL, LENGTHS,
        *(
            sentence(
                f"The <some> took part in the sum: the weights left add up to {left}, and they leak what is hidden: "
                "other hidden items would give other weights.",
                left_over,
            )
            for left in ("<number> and not to 1", "a little less than 1")
        ),
    ],
    "no-mask": [
        *SEES_ALL,
        *(
            sentence(f"<name> would see {what}, <names>, with <number> of its weight.", would_see, later)
            for later, what in ((True, "what comes later"), (False, "what the mask hides"))
        ),
        sentence(
            "That is bidirectional attention, right for reading a whole text; a model that learns to guess the next "
            "item would simply copy it, and learn little.",
            bidirectional,
        ),
    ],
}  # fmt: skip
