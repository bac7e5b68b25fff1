"""What --quiz asks and answers: of each question, which of its answers is true, by numbers of its own."""

import re

from tests.explain.judge.names import sub, things
from tests.explain.judge.pages import check_items, check_prose
from tests.explain.judge.ranges import Range, exp, figure, says
from tests.explain.judge.reading import Page, Prose, Table
from tests.explain.judge.sentences import Sentence, definitions, sentence
from tests.explain.judge.texts import NOTES, required
from tests.explain.judge.truth import Truth
from tests.explain.judge.zero import share_of_zero


def check_quiz(judge, page: Page) -> None:
    """The sheet and its JSON."""
    made, n = judge.json, judge.truth.n
    judge.holds(list(made) == ["tokens", "position", "questions", "notes"], f"entries {list(made)}")
    judge.holds((made["tokens"], made["position"]) == (judge.tokens, judge.truth.i), "tokens or position")
    judge.holds(page.title == "Questions on the steps", f"the title is {page.title!r}")
    check_items(judge, page.items, None)
    asked = 5 if n > 1 else 4
    headings = ["", *(f"Question {at} of {asked}" for at in range(1, asked + 1)), "Answers"]
    judge.holds([one.heading for one in page.sections] == headings, "other headings")
    for block in page.sections[0].blocks:
        check_prose(judge, block.text, NOTES)
    for at, (section, one) in enumerate(zip(page.sections[1:-1], made["questions"], strict=True)):
        text, options = section.blocks
        judge.holds(text.text == one["question"], "JSON asks otherwise")
        check_prose(judge, text.text, QUESTIONS)
        letters = [[letter, answer] for letter, answer in one["options"].items()]
        judge.holds(options == Table(["", "answer"], letters), "JSON has other answers")
        right = [letter for letter, answer in letters if TRUE[at](judge, answer)]
        judge.holds(one["answer"] == ORDER if at == 0 else right == [one["answer"]], f"right are {right}")
    answers = [f"{at}: {one['answer']}. {one['why']}" for at, one in enumerate(made["questions"], 1)]
    told = page.sections[-1].blocks
    judge.holds([block.text for block in told if isinstance(block, Prose)] == answers, "JSON answers otherwise")
    for one in made["questions"]:
        check_prose(judge, one["why"], ANSWERS)
    judge.says_all(
        *required(judge), *(f"question {at}" for at in range(asked)), *(f"answer {at}" for at in range(asked))
    )


ORDER = "cab"  # scores, softmax, weighted sum


def in_order(judge, answer: str) -> bool:
    """The steps are put in order, none is right by itself."""
    return answer not in ("softmax", "weighted sum of the vectors", "scores: dot products")


def weight_of_one(judge) -> Range:
    """exp(0) over the sum with one more."""
    log = judge.truth.log_sum
    return Range(share_of_zero(log.hi), share_of_zero(log.lo))


def zero_weight(judge, answer: str) -> bool:
    found = re.fullmatch(r"exp\(0\) ÷ \(sum \+ exp\(0\)\) = (.*)", answer)
    if not found:
        judge.holds(answer in ("0: it is not looked at", "1: nothing speaks against it"), f"{answer!r}")
        return False
    is_weight(judge, found[1])
    return True


def is_weight(judge, told: str) -> None:
    if told == "positive, if too small for a float64":
        judge.holds(judge.truth.log_sum.hi > 743, "a float64 holds it")
    else:
        says(told, weight_of_one(judge), "the weight")


def sum_is_one(judge, answer: str) -> bool:
    judge.holds(answer in ("0: they cancel out", "1", "to more, the more alike the items are"), f"{answer!r}")
    return answer == "1"


def shape_is(judge, answer: str) -> bool:
    n, d = judge.truth.x.shape
    meant = {
        f"({n},{n}): a number for each pair of items": True,
        f"({d},{d}): a number for each pair of dims": False,
        f"({n},{d}): a number for each dim of each item": False,
    }
    judge.holds(answer in meant, f"{answer!r}")
    return meant[answer]


def hidden_when(judge, answer: str) -> bool:
    meant = {
        "before the softmax, by a score of −∞": True, "after it, by a weight of 0": False, "it does not matter": False,
    }  # fmt: skip
    judge.holds(answer in meant, f"{answer!r}")
    return meant[answer]


TRUE = (in_order, zero_weight, sum_is_one, shape_is, hidden_when)


def added(judge, angle: bool, name: str) -> None:
    judge.is_own(name)
    judge.claim("question 1", angle == (judge.truth.d > 1 and not judge.truth.zero), "nothing is at right angles to it")


def sees(judge, name: str, items: str) -> None:
    judge.is_own(name)
    judge.claim("question 2", items == things(judge.truth.i + 1, "item"), f"it sees {judge.truth.i + 1}")


def matrix(judge, n: str, d: str, items: str, numbers: str) -> None:
    judge.claim("question 3", (int(n), int(d)) == judge.truth.x.shape, f"{judge.truth.x.shape}")
    judge.holds((items, numbers) == (things(int(n), "item"), things(int(d), "number")), "sizes")


def first_item(judge, name: str) -> None:
    judge.claim("question 4", 0 in judge.names.who(name) and judge.truth.n > 1, "another item")


def so_the_weight(judge, shifted: bool, weight: str, name: str, whole: str, *more: str) -> None:
    judge.is_own(name)
    log, shift = judge.truth.log_sum, 0.0
    if shifted:
        says(more[0], judge.truth.top, "the largest score")
        shift = judge.truth.top.lo
    judge.holds(shifted == (log.hi > 709.78) or shifted == (log.lo > 709.79), "whether it is taken away")
    slack = 1e-9 if shifted else 0.0
    says(whole, Range(exp(log.lo - shift - slack), exp(log.hi - shift + slack)), "the sum")
    is_weight(judge, more[-1] if weight == "<number>" else weight)
    judge.once("answer 1")


def of_all(judge, whole: str) -> None:
    judge.once("answer 2")
    log, top = judge.truth.log_sum, judge.truth.top
    plain = Range(exp(log.lo), exp(log.hi))
    within = Range(exp(log.lo - top.hi), exp(log.hi - top.lo))
    judge.holds(figure(whole).meets(plain if log.hi < 709.78 else within), f"the sum is {plain}")


def compares(judge, *sizes: str) -> None:
    n, d = judge.truth.x.shape
    judge.claim("answer 3", [*map(int, sizes)] == [n, d, d, n, n, n, d, d], f"{n} items of {d} dims")


def left_of_it(judge, items: str, weight: str) -> None:
    judge.claim("answer 4", items == things(judge.truth.n, "exponential"), f"{judge.truth.n} items")
    says(weight, Truth(judge.truth.x, 0, ("full",)).weight(0), "what is left")


def said(judge, what: str) -> None:
    judge.once(what)


QUESTIONS: list[Sentence] = [
    sentence("Put the steps of self-attention in order, as in “bca”.", said, "question 0"),
    sentence("An item at right angles to <name> is added to what it sees.", added, True),
    sentence("A zero vector is added to what <name> sees.", added, False),
    sentence("<name> sees <some>. What do its weights add up to?", sees),
    sentence(
        "X is (<count>,<count>): <some>, each a vector of <some>. What is X Xᵀ, the scores?", matrix,
    ),
    sentence("Item 0, <name>, may see only itself. When must the future be hidden?", first_item),
    *definitions("Its score is 0.", "What is its weight?"),
]  # fmt: skip
ANSWERS: list[Sentence] = [
    sentence(
        "First the scores, for weights come from how alike items are; then softmax, which makes positive weights of "
        "them that add up to 1; then the sum of the vectors, each times its weight.",
        said, "answer 0",
    ),
    *(
        sentence(
            f"The exponentials of <name> add up to <number>{taken}, so the weight is {weight}. Only a score of −∞, "
            "which hides an item, makes it 0.",
            so_the_weight, bool(taken), weight,
        )
        for taken, weight in (
            (" once <number> is taken from every score", "positive, if too small for a float64"),
            (" once <number> is taken from every score", "<number>"), ("", "<number>"),
        )
    ),
    sentence(
        "Softmax divides every exponential by the sum of all, here <number>: the weights add up to 1, however many "
        "items there are.",
        of_all,
    ),
    sentence(
        "(<count>,<count>)·(<count>,<count>) → (<count>,<count>): a score for each pair. Xᵀ X would be "
        "(<count>,<count>), which compares dims.",
        compares,
    ),
    sentence(
        f"Hidden before, its weight on itself, {sub('α', 0)}₀, is 1. Hidden after, the sum would hold all <some>, and "
        "<number> would be left of it.",
        left_of_it,
    ),
    *definitions("exp(0) = 1."),
]  # fmt: skip
