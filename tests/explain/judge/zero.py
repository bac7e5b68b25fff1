"""What the worked steps say of dot products of 0 and of weights of 0, and what each of these sentences claims."""

from collections.abc import Iterator

from tests.explain.judge.ranges import Range, exact, exp, figure, is_share, says
from tests.explain.judge.sentences import Sentence, sentence


def lost_dots(judge, plural: bool, names: str) -> None:
    """Which dot products are 0 in a float64 though they are not."""
    truth, dots = judge.truth, judge.json["dot_products"]
    judge.holds(not truth.zero, "it is the zero vector")
    lost = [j for j in truth.items if dots[j] == 0 and truth.x[j].any() and not truth.angles.get(j, False)]
    judge.lists(names, [f"“{judge.names.labels[j]}”" for j in lost])
    judge.holds(bool(lost) and plural != judge.names.one(lost), "number of the pronoun")
    judge.once("lost dots")


def made_infinite(judge, plural: bool, names: str) -> None:
    gone = [j for j in judge.truth.items if judge.truth.scores[1][j] == -float("inf")]
    judge.holds(bool(gone), "no score is −∞")
    judge.holds(plural != judge.names.one(gone), "number of the noun")
    judge.lists(names, [f"“{judge.names.labels[j]}”" for j in gone])
    judge.once("infinite")


def underflow(judge, plural: bool, names: str) -> None:
    """Which weights are 0 in a float64 though they are not: those that JSON gives as 0."""
    low = judge.truth.log_weights[0]
    lost = [j for j in judge.truth.items if judge.json["weights"][j] == 0 and judge.truth.in_softmax[j]]
    judge.holds(bool(lost), "no weight is lost")
    judge.holds(all(low[j] < -743 for j in lost), "a float64 has room for this weight")
    judge.lists(names, [f"“{judge.names.labels[j]}”" for j in lost])
    judge.holds(plural != judge.names.one(lost), "number of the noun")
    judge.once("underflow")


def about_zero(judge, what: str) -> None:
    judge.claim("zero", (what == "Dot product") == bool(judge.truth.rules), "rules turn dot products into scores")


def own_zero(judge, rules: bool, name: str, *numbers: str) -> None:
    judge.is_own(name)
    truth = judge.truth
    judge.holds(truth.zero, "it is not the zero vector")
    judge.holds(rules == bool(truth.rules), "rules")
    if numbers:
        count, weight, percent = numbers
        judge.holds(int(count) == len(truth.items), f"{len(truth.items)} items are seen")
        judge.equation(exact(1 / int(count)), weight, f"1 ÷ {count}")
        is_share(percent, exact(1 / int(count)), "the weight")
    judge.once("own zero")


def special(judge, which: str, plural: bool, names: str, *rest: str) -> None:
    """Items whose dot product is 0: who they are, and what weight they have all the same."""
    truth = judge.truth
    items = judge.json["at_right_angles" if which == "angles" else "zero_vectors"]
    judge.holds(bool(items) and not truth.zero, "there are none")
    judge.lists(names, [f"“{judge.names.labels[j]}”" for j in items])
    judge.holds(plural != judge.names.one(items), "number of the verb")
    if which == "angles":
        judge.is_own(rest[0])
        rest = rest[1:]
    judge.once(which)
    judge.special = items


def weight_of_zero(judge, form: str, *numbers: str) -> None:
    """exp(0) over the sum, the same for each of the items just named."""
    truth, items, shift = judge.truth, judge.special, judge.shift
    judge.holds(not truth.rules and bool(items), "no such items")
    judge.holds((form == "shifted") == bool(shift) or form == "lost", "whether the largest score was subtracted")
    if form == "lost":
        says(numbers[0], exact(shift), "the largest score")
        judge.holds(all(judge.json["weights"][j] == 0 for j in items), "a float64 holds it")
        return
    if form == "shifted":
        says(numbers[0], exact(shift), "the largest score")
        left = Range(exp(-figure(numbers[0]).hi), exp(-figure(numbers[0]).lo))
        numbers = numbers[1:]
    else:
        left = exact(1.0)
    divisor, weight, percent = numbers[:3]
    says(divisor, judge.sum, "the sum of the exponentials")
    judge.equation(left / figure(divisor), weight, "exp(0) over the sum")
    for j in items:
        says(weight, truth.weight(j), f"the weight of item {j}")
        is_share(percent, truth.weight(j), f"the weight of item {j}")


def rules_decide(judge, named: bool, *found: str) -> None:
    """A score and a weight of those just named, where rules stand between."""
    truth, items = judge.truth, judge.special
    judge.holds(bool(truth.rules), "there are no rules")
    judge.holds(named == (len(items) > 1), "which of them")
    score, weight = found[-2:]

    def fits(j: int) -> None:
        judge.holds(j in items, "another item")
        says(score, truth.score(j), f"the score of item {j}")
        says(weight, truth.weight(j), f"the weight of item {j}")

    if named:
        judge.one_of(found[0], fits)
    else:
        fits(items[0])


def nothing_has_zero(judge, lone: bool, name: str) -> None:
    judge.is_own(name)
    judge.holds(lone == (judge.truth.d == 1), f"right angles in {judge.truth.d} dims")
    truth = judge.truth
    judge.holds(bool(truth.rules), "there are no rules")
    judge.holds(not truth.zero and not truth.blank and not any(truth.angles.values()), "something has")
    judge.once("nothing has")


def share_of_zero(log_sum: float) -> float:
    """1 ÷ (1 + exp(log_sum))."""
    return exp(-log_sum) if log_sum > 600 else 1 / (1 + exp(log_sum))


def would_get(judge, form: str, lone: bool, name: str, *numbers: str) -> None:
    """What weight exp(0) would have if it were added to the sum."""
    judge.is_own(name)
    judge.holds(lone == (judge.truth.d == 1), f"right angles in {judge.truth.d} dims")
    truth, shift = judge.truth, judge.shift
    judge.holds(not truth.rules and not truth.zero and not truth.blank, "there are such items, or rules")
    judge.holds(not any(truth.angles.values()), "there are such items")
    log = truth.log_sum
    share = Range(share_of_zero(log.hi), share_of_zero(log.lo))
    judge.once("would get")
    if form == "lost":
        says(numbers[0], exact(shift), "the largest score")
        judge.holds(log.hi > 743, "a float64 holds it")
        return
    if form == "nearly all":
        judge.holds(log.lo < -743, "a float64 holds the others")
        return
    if form == "shifted":
        top, sums, weight = numbers
        says(top, exact(shift), "the largest score")
        one = exp(-shift)
        says(sums, Range(judge.sum.lo + one, judge.sum.hi + one), "the sum with one more")
        judge.equation(Range(exp(-figure(top).hi), exp(-figure(top).lo)) / figure(sums), weight, "the division")
    else:
        judge.holds(shift <= 0, "the largest score was subtracted")
        sums, weight, percent = numbers
        says(sums, log.exp(), "the sum of the exponentials")
        judge.equation(exact(1.0) / (figure(sums) + exact(1.0)), weight, "the division")
        is_share(percent, share, "its weight")
    says(weight, share, "its weight")


def nearest_zero(judge, several: bool, name: str, score: str, weight: str) -> None:
    """The other item whose score is nearest to 0, or the only other one."""
    truth = judge.truth
    others = [j for j in truth.items if j != truth.i]
    judge.holds(several == (len(others) > 1), f"there are {len(others)} others")

    def away(j: int) -> Range:
        own = truth.score(j)
        return Range(0 if own.lo <= 0 <= own.hi else min(abs(own.lo), abs(own.hi)), max(abs(own.lo), abs(own.hi)))

    least = min(away(j).hi for j in others)

    def fits(j: int) -> None:
        judge.holds(j in others and away(j).lo <= least, "another is nearer")
        says(score, truth.score(j), f"the score of item {j}")
        says(weight, truth.weight(j), f"the weight of item {j}")

    judge.one_of(name, fits)


def no_weights(judge, why: str, name: str) -> None:
    judge.is_own(name)
    truth = judge.truth
    judge.holds(not truth.in_softmax.any(), "it has weights")
    judge.claim("no weights", (why == "rules") == bool(truth.items), f"it sees {len(truth.items)} items")


SUBJECTS = {
    ("angles", False): "<names> is at right angles to <name>",
    ("angles", True): "<names> are at right angles to <name>",
    ("blank", False): "<names> is the zero vector, whose dot product with anything is 0",
    ("blank", True): "<names> are zero vectors, whose dot product with anything is 0",
}
WOULD = {
    False: "an item at right angles to <name>, added to what it sees,",
    True: "a zero vector, added to what <name> sees,",
}
TOLD = {
    "plain": "exp(0) = 1, and 1 ÷ <number> = <number>, <percent> of the whole",
    "shifted": "exp(0 − <number>) ÷ <number> = <number>, <percent> of the whole",
    "lost": "exp(0 − <number>) is positive, though here too small for a float64",
}


def with_weight() -> Iterator[Sentence]:
    """Items with dot product 0: a subject, and one of the ways to tell their weight; several may share a name."""
    for (which, plural), subject in SUBJECTS.items():
        has = "and yet have weight:" if plural else "and yet has weight:"
        for form, tail in TOLD.items():
            for each in ("",) if form == "lost" else (", each",) if plural else ("", ", each"):
                yield sentence(f"{subject}, {has} {tail}{each}.", told_weight, which, plural, form, bool(each))
        for whose in (" for <item>",) if plural else ("", " for <item>"):
            told = f"the rules decide:{whose} score <number>, weight <number>"
            yield sentence(f"{subject}; what weight that makes, {told}.", told_rules, which, plural, bool(whose))


def told_weight(judge, which: str, plural: bool, form: str, each: bool, *found: str) -> None:
    own = 2 if which == "angles" else 1
    special(judge, which, plural, *found[:own])
    if form != "lost":
        judge.holds(each == (len(judge.special) > 1), "each of several")
    weight_of_zero(judge, form, *found[own:])


def told_rules(judge, which: str, plural: bool, named: bool, *found: str) -> None:
    own = 2 if which == "angles" else 1
    special(judge, which, plural, *found[:own])
    rules_decide(judge, named, *found[own:])


ZEROS = [
    sentence(
        "Dot product 0 is underflow here: that of <names> is not 0, but too small for a float64.", lost_dots, False
    ),
    sentence(
        "Dot product 0 is underflow here: those of <names> are not 0, but too small for a float64.", lost_dots, True
    ),
    sentence("A rule made the score of <names> −∞: exp(−∞) = 0, no weight.", made_infinite, False),
    sentence("A rule made the scores of <names> −∞: exp(−∞) = 0, no weight.", made_infinite, True),
    sentence(
        "Weight 0 is underflow here: the weight of <names> is positive, but too small for a float64.", underflow, False
    ),
    sentence(
        "Weight 0 is underflow here: the weights of <names> are positive, but too small for a float64.", underflow, True
    ),
    sentence("Score 0 is not weight 0:", about_zero, "Score"),
    sentence("Dot product 0 is not weight 0:", about_zero, "Dot product"),
    sentence(
        "<name> is the zero vector, so every dot product is 0, and the rules alone decide the weights.", own_zero, True
    ),
    sentence(
        "<name> is the zero vector, so every score is 0 and all weights are equal: exp(0) = 1, and 1 ÷ <count> = "
        "<number>, <percent>.",
        own_zero, False,
    ),
    *with_weight(),
    *(
        sentence(
            f"nothing that <name> sees is {kind}; such an item would get whatever weight the rules make of 0.",
            nothing_has_zero, lone,
        )
        for lone, kind in ((False, "at right angles to it"), (True, "a zero vector"))
    ),
    *(
        sentence(f"{item} would get {told}.", would_get, form, lone)
        for lone, item in WOULD.items()
        for form, told in {
            "nearly all": "nearly all the weight: exp(0) = 1, and all others together are too small for a float64",
            "lost": "weight: exp(0 − <number>) is positive, though here too small for a float64",
            "shifted": "weight: exp(0 − <number>) ÷ <number> = <number>",
            "plain": "weight: exp(0) = 1, and 1 ÷ (<number> + 1) = <number>, <percent> of the whole",
        }.items()
    ),
    sentence("Here <item> has score <number>, weight <number>.", nearest_zero, False),
    sentence(
        "Of the others here, <item> has the score nearest to 0: score <number>, weight <number>.", nearest_zero, True
    ),
    sentence(
        "The rules make every score of <name> −∞: there are no weights, and by definition its output is 0.",
        no_weights, "rules",
    ),
    sentence("<name> sees nothing: there are no weights, and by definition its output is 0.", no_weights, "nothing"),
]  # fmt: skip
