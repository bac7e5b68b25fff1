"""What --steps order, shapes and cost say: every number for this input's own sizes, and JSON's rows with them."""

import re

import numpy as np

from tests.explain.judge.names import things
from tests.explain.judge.pages import check_items, check_prose
from tests.explain.judge.ranges import Range, UntrueError, exact, says
from tests.explain.judge.reading import FORMULA, Page, Prose, Table
from tests.explain.judge.sentences import Sentence, definitions, sentence
from tests.explain.judge.texts import NOTES, required
from tests.explain.judge.truth import LARGEST, Truth, total

TITLES = {
    "order": "The order of the steps",
    "shapes": "The shapes of the steps",
    "cost": "The cost of the steps",
}
HEADINGS = {
    "order": [
        "", "Why not sum with the scores themselves?", "Why hide the future before the softmax?",
        "Why is a score of 0 not the end of an item?",
    ],
    "shapes": ["", "The first approach", "The transformer's form"],
    "cost": ["", "As the input grows", "Beside a recurrent network"],
}  # fmt: skip
FORMULAS = {
    "S = X X^{T}": "S = X Xᵀ", r"\mbox{hide}\ j > i": "hide j > i", r"A = \mathrm{softmax}(S)": "A = softmax(S)",
    "Y = A X": "Y = A X", "Q = X W^Q": "Q = X W^Q", "K = X W^K": "K = X W^K", "V = X W^V": "V = X W^V",
    r"S = Q K^{T} / \sqrt{p}": "S = Q Kᵀ / √p", "Z = A V": "Z = A V", "Y = Z W^O": "Y = Z W^O",
    "n(n+1)/2": "n(n + 1)/2", r"d \cdot n(n+1)/2": "d · n(n + 1)/2", "4 n^2": "4 n²", r"2 \cdot 4 n d": "2 · 4 n d",
    "n(n+1) d": "n(n + 1) d", "2 n d^2": "2 n d²", "1": "1", "n": "n", "n - 1": "n − 1", "4 d": "4 d", "2 d^2": "2 d²",
    "x": "x", r"u = x / \mathrm{rms}(x)": "u = x ÷ rms(x)", "q = R(u W^Q)": "q = R(u W^Q)",
    "k = R(u W^K)": "k = R(u W^K)", "v = u W^V": "v = u W^V", "x + a": "x + a", "x + a + m": "x + a + m",
    r"o = \mathrm{softmax}(q K^{T} / \sqrt{d})\, V": "o = softmax(q Kᵀ ÷ √d) V",
    r"a = [\mbox{all}\ o]\, W^O": "a = [all o] W^O", r"w = \mathrm{norm}(x + a)": "w = norm(x + a)",
    r"h = \mathrm{gelu}(w W^{up})": "h = gelu(w W^up)", r"m = h W^{down}": "m = h W^down",
    "(n+1)(n+2) d": "(n + 1)(n + 2) d", "2 (n+1) d^2": "2 (n + 1) d²", "2 (n+1) d": "2 (n + 1) d",
}  # fmt: skip
ORDER = [
    ["scores", "vectors", "a number for each pair j ≤ i", "weights come from how alike items are"],
    ["softmax", "scores", "weights: positive, adding up to 1", "it divides by the sum over all of a row"],
    ["weighted sum", "weights, vectors", "a vector for each item", "only weights that add up to 1 make an average"],
]
UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
MORE = {"cost": ("mask", "masked", "recurrence")}
LENGTHS = (128, 1024, 4096, 16384, 65536, 1048576)


def check_lesson(judge, name: str, page: Page) -> None:
    """A lesson's page and its JSON."""
    made, (n, d) = judge.json, judge.truth.x.shape
    entries = ["steps", "tokens", "length", "dim", "rows", "why", *MORE.get(name, ()), "notes"]
    judge.holds(list(made) == entries, f"entries {list(made)}")
    judge.holds((made["steps"], made["tokens"], made["length"], made["dim"]) == (name, judge.tokens, n, d), "sizes")
    judge.holds(page.title == TITLES[name], f"the title is {page.title!r}")
    check_items(judge, page.items, None)
    judge.holds([one.heading for one in page.sections] == HEADINGS[name], "other headings")
    judge.holds(not any(one.formula for one in page.sections), "a formula")
    for section in page.sections:
        judge.kept["section"] = section
        for block in section.blocks:
            if isinstance(block, Prose):
                check_prose(judge, block.text, [*NOTES, *SENTENCES[name]])
            else:
                TABLES[name](judge, block)
    paragraphs = [block.text for section in page.sections[1:] for block in section.blocks if isinstance(block, Prose)]
    answers = dict(zip(HEADINGS["order"][1:], paragraphs, strict=False)) if name == "order" else {}
    judge.holds(made["why"] == answers, "JSON answers otherwise")
    judge.says_all(*required(judge), *(f"{name} {at}" for at in range(TOLD[name](judge))))


def order_table(judge, table: Table) -> None:
    judge.holds(table == Table(["step", "takes", "gives", "why"], ORDER), "another order")
    judge.holds(judge.json["rows"] == [dict(zip(table.head, row, strict=True)) for row in ORDER], "JSON's rows")


def not_one(judge, alike: str, name: str, *sums: str) -> None:
    """The sum of the scores, of all that are seen."""
    judge.is_own(name)
    judge.once("order 0")
    truth = judge.truth
    together = total(truth.dots, truth.items)
    if alike == "inf":
        judge.holds(together.hi > LARGEST, "a float64 holds the sum")
    else:
        says(alike or sums[0], together, "the sum of the scores")


def negative(judge, *counts: str) -> None:
    """How many scores are negative: not those that are 0 up to rounding."""
    truth, (low, high) = judge.truth, judge.truth.dots
    sure = [j for j in truth.items if high[j] < 0]
    zero = {*truth.blank, *(j for j, told in truth.angles.items() if told), *(truth.items if truth.zero else [])}
    maybe = [j for j in truth.items if low[j] < 0 and j not in zero]
    told = int(counts[0]) if counts else 1
    judge.holds(len(sure) <= told <= len(maybe) and (not counts or told > 1), f"{len(sure)} are negative")
    judge.once("negative")


def late(judge, name: str, items: str, weight: str) -> None:
    """What a softmax over all would leave of the first item's weight."""
    judge.holds(0 in judge.names.who(name), "item 0 has another name")
    judge.holds(int(items) == judge.truth.n > 1, f"there are {judge.truth.n} items")
    judge.once("order 1")
    says(weight, Truth(judge.truth.x, 0, ("full",)).weight(0), "what is left")


def lone(judge) -> None:
    judge.holds(judge.truth.n == 1, f"there are {judge.truth.n} items")
    judge.once("order 1")


def heads_of(d: int) -> int:
    """Eight heads, or fewer where they do not divide the dims into parts."""
    return next(h for h in (8, 4, 2, 1) if h == 1 or (d % h == 0 and d > h))


def sizes(judge) -> dict[str, int]:
    n, d = judge.truth.x.shape
    h = heads_of(d)
    return {"n": n, "d": d, "h": h, "p": d // h, "h·p": d}


def shapes_opening(judge, items: str, numbers: str) -> None:
    n, d = judge.truth.x.shape
    judge.claim("shapes 0", (items, numbers) == (things(n, "item"), things(d, "number")), f"{n} items of {d} dims")


def mask_leaves(judge, left: str, whole: str) -> None:
    n = judge.truth.n
    judge.claim("shapes 1", (int(left), whole) == (sum(range(1, n + 1)), things(n * n, "weight")), f"{n} items")


def same_shape(judge, n: str, d: str) -> None:
    judge.claim("shapes 2", (int(n), int(d)) == judge.truth.x.shape, f"{judge.truth.x.shape}")


def in_heads(judge, each: bool, heads: str, dims: str, numbers: str) -> None:
    own, d = sizes(judge), judge.truth.d
    judge.claim("shapes 3", (heads, dims) == (things(own["h"], "head"), things(own["p"], "dim")), f"{own}")
    judge.holds(each == (own["h"] > 1), "each of several")
    judge.holds(own["h"] * own["p"] == d and short(numbers).meets(exact(4.0 * d * d)), f"{4 * d * d} numbers")


def adds_up(judge, products: str) -> None:
    judge.claim("shapes 4", products == things(sizes(judge)["p"], "product"), "another dim")


def shape_table(judge, table: Table) -> None:
    """Shapes in letters and in numbers: both must fit by the rules of matrices."""
    judge.holds(table.head == ["step", "formula", "shapes", "here"] and not table.total, "other columns")
    form = {"The first approach": "first approach", "The transformer's form": "transformer"}[
        judge.kept["section"].heading
    ]
    rows = [row for row in judge.json["rows"] if row["form"] == form]
    judge.holds(len(rows) == len(table.rows), "JSON's rows")
    own = sizes(judge)
    for row, (step, formula, letters, numbers) in zip(rows, table.rows, strict=True):
        plain = [cell.replace("\u00a0", " ") for cell in (letters, numbers)]
        judge.holds(
            list(row.values()) == [form, step, FORMULAS[formula.removeprefix(FORMULA)], *plain], f"JSON has {row}"
        )
        here = re.sub("h·p|[ndhp]", lambda found: str(own[found.group()]), plain[0])
        judge.holds(here == plain[1], f"{plain[1]} is not {here}")
        fits(judge, step, plain[1])


def fits(judge, step: str, said: str) -> None:
    """Inner sizes are equal, and the result has as many numbers as a product of matrices."""
    before, _, after = said.partition(" → ")
    *operands, result = [[int(size) for size in one.strip("()").split(",")] for one in [*before.split("·"), after]]
    if len(operands) == 1:
        judge.holds(operands[0] == result, f"{step} changes the shape")
        return
    one, other = (np.zeros(shape, bool) for shape in operands)
    if len(one.shape) > 2 and step != "output":
        judge.holds(one.shape[-1] == other.shape[-2] and one.shape[0] == other.shape[0], f"{said} does not fit")
    judge.holds(one.shape[-1] == other.shape[-2], f"{said} does not fit")
    size = one.size // one.shape[-1] * other.shape[-1]
    judge.holds(size == np.prod(result), f"{said}: {size} numbers")


def short(text: str) -> Range:
    """A count in three digits; exact below 100 000."""
    found = re.fullmatch(r"(\d{1,3}(?:,\d{3})?|\d+\.\d+)(?: ([kMGTPE]))?", text)
    if not found:
        raise UntrueError(f"{text!r} is not how counts are printed")
    value, unit = float(found[1].replace(",", "")), UNITS[found[2] or ""]
    if not found[2]:
        return exact(value)
    half = 0.5 * 10.0 ** -max(0, 3 - len(found[1].partition(".")[0])) * (1 + 1e-9)
    return Range((value - half) * unit, (value + half) * unit)


def size(text: str) -> Range:
    """A number of bytes in four digits."""
    number, unit = text.split(" ")
    value = float(number)
    half = 0.5 * 10.0 ** -max(0, 4 - len(number.partition(".")[0])) if unit != "B" else 0.0
    return Range((value - half) * BYTES[unit], (value + half) * BYTES[unit])


def costs(n: int, d: int) -> dict[str, int]:
    """What n items of d dims cost, counted."""
    pairs = sum(range(n + 1))
    return {
        "length": n, "dim": d, "pairs": pairs, "score_multiply_adds": d * pairs, "exponentials": pairs,
        "sum_multiply_adds": d * pairs, "multiply_adds": 2 * d * pairs, "matrix_bytes": 4 * n * n,
        "vectors_bytes": 2 * 4 * n * d,
    }  # fmt: skip


def cost_opening(judge, dims: str, width: str) -> None:
    judge.claim("cost 0", (dims, width) == (things(judge.truth.d, "dim"), "4"), f"{judge.truth.d} dims")


def cost_table(judge, table: Table) -> None:
    n, d = judge.truth.x.shape
    lengths = sorted({n, *LENGTHS})
    judge.holds(judge.json["rows"] == [costs(length, d) for length in lengths], "JSON's rows")
    if table.head[0] == "what":
        own = costs(n, d)
        judge.holds(table.head == ["what", "formula", f"n = {n}"], "other columns")
        names = [
            ("pairs j ≤ i", "n(n+1)/2", "pairs"),
            ("scores: multiply-adds", r"d \cdot n(n+1)/2", "score_multiply_adds"),
            ("softmax: exponentials", "n(n+1)/2", "exponentials"),
            ("weighted sum: multiply-adds", r"d \cdot n(n+1)/2", "sum_multiply_adds"),
            ("the n × n matrix", "4 n^2", "matrix_bytes"),
            ("x and y alone", r"2 \cdot 4 n d", "vectors_bytes"),
        ]
        judge.holds([row[:2] for row in table.rows] == [[what, FORMULA + latex] for what, latex, _ in names], "rows")
        for row, (_, _, key) in zip(table.rows, names, strict=True):
            counted(judge, row[2], own[key], key)
        return
    if table.head[0] == "":
        formulas = [[FORMULA + latex for latex in row] for row in RECURRENT.values()]
        judge.holds(table.head == ["", "attention", "recurrent"], "other columns")
        judge.holds(
            [row[1:] for row in table.rows] == formulas and [row[0] for row in table.rows] == [*RECURRENT], "rows"
        )
        return
    if table.head[0] == "of":
        beside(judge, table)
        return
    judge.holds(table.head == ["n", "pairs", "multiply-adds", "exponentials", "n × n matrix", "x and y"], "columns")
    for length, row in zip(lengths, table.rows, strict=True):
        own = costs(length, d)
        judge.holds(row[0] == length_name(length, n), f"{row[0]} for {length}")
        for key, cell in zip(
            ("pairs", "multiply_adds", "exponentials", "matrix_bytes", "vectors_bytes"), row[1:], strict=True
        ):
            counted(judge, cell, own[key], f"{key} of {length}")


RECURRENT = {
    "multiply-adds": ("n(n+1) d", "2 n d^2"),
    "steps one after another": ("1", "n"),
    "longest way between items": ("1", "n - 1"),
    "one item more, all anew": ("(n+1)(n+2) d", "2 (n+1) d^2"),
    "one item more, from what is kept": ("2 (n+1) d", "2 d^2"),
    "bytes kept": (r"2 \cdot 4 n d", "4 d"),
}
TEXTS = {"a sentence": 20, "a paper": 8_000, "a book": 120_000}


def beside_opening(judge, d: str) -> None:
    judge.claim("cost 1", int(d) == judge.truth.d, f"{judge.truth.d} dims")


def beside(judge, table: Table) -> None:
    """Multiply-adds of attention and of a recurrent network, counted pair by pair and step by step."""
    n, d = judge.truth.x.shape
    judge.holds(table.head == ["of", "n", "attention", "recurrent", "one more", "one more, recurrent"], "other columns")
    judge.holds([row[0] for row in table.rows] == ["this input", *TEXTS], "other texts")
    check_more(judge)
    for length, row in zip((n, *TEXTS.values()), table.rows, strict=True):
        pairs, step = length * (length + 1) // 2, d * d + d * d
        for value, cell in zip(
            (length, 2 * d * pairs, step * length, 2 * d * (length + 1), step), row[1:], strict=True
        ):
            counted(judge, cell, value, f"of {length}")


def check_more(judge) -> None:
    """What JSON says of masks and of recurrence, without a mask."""
    n, d = judge.truth.x.shape
    pairs = {what: (length, length * (length + 1) // 2) for what, length in {"this input": n, **TEXTS}.items()}
    masked = [{"of": what, "length": length, "pairs": both} for what, (length, both) in pairs.items()]
    recurrence = [
        {"of": what, "length": length, "attention": 2 * d * both, "recurrent": 2 * d * d * length,
         "attention_more": 2 * d * (length + 1), "recurrent_more": 2 * d * d}
        for what, (length, both) in pairs.items()
    ]  # fmt: skip
    made = judge.json
    judge.holds((made["mask"], made["masked"], made["recurrence"]) == ("causal", masked, recurrence), "JSON's costs")


def counted(judge, cell: str, count: int, what: str) -> None:
    told = size(cell) if what.split(" ")[0].endswith("bytes") else short(cell)
    judge.holds(told.meets(exact(float(count))), f"{what} are {count}, not {cell}")


def length_name(length: int, own: int) -> str:
    """A length counted by 1024."""
    for unit, letter in ((2**20, "M"), (2**10, "k")):
        if length % unit == 0:
            return ("this: " if length == own else "") + f"{length // unit}{letter}"
    return ("this: " if length == own else "") + f"{length:,}"


SENTENCES: dict[str, list[Sentence]] = {
    "order": [
        sentence("Nothing makes scores add up to 1: those of <name> come to <number>.", not_one, ""),
        sentence("Nothing makes scores add up to 1: those of <name> exceed a float64 together.", not_one, "inf"),
        sentence("Nothing makes scores add up to 1: those of <name> add up to 1 by chance.", not_one, "1.0000"),
        sentence("The negative one here would even subtract.", negative),
        sentence("The negative ones, <count> here, would even subtract.", negative),
        sentence(
            "Item 0, <name>, sees only itself, so its weight is 1. Were the future hidden after the softmax, the sum "
            "would hold all <count> exponentials, and a weight of <number> would be left of that 1.",
            late,
        ),
        sentence("One item alone has no future to hide.", lone),
        *definitions(
            "As weights they would let the output grow with the input's length.",
            "After the softmax all weights are positive and add up to 1.",
            "Because the softmax divides by a sum.",
            "Because the softmax divides by the sum over what is seen.",
            "Because exp comes after the score, and exp(0) = 1 is a positive number.",
            "To hide an item, its score must become −∞ before the softmax, for exp(−∞) = 0; that is how the future is "
            "hidden.",
        ),
    ],
    "shapes": [
        sentence("n = <some>, each a vector of d = <some>.", shapes_opening),
        sentence("The mask leaves n(n + 1)/2 = <count> of <some>.", mask_leaves),
        sentence("The output has the input's shape, (<count>,<count>), so one layer can follow another.", same_shape),
        sentence(
            "With h = <some> of p = d/h = <some> each, and four matrices of d² numbers to learn, <some> in all.",
            in_heads, True,
        ),
        sentence(
            "With h = <some> of p = d/h = <some>, and four matrices of d² numbers to learn, <some> in all.",
            in_heads, False,
        ),
        sentence(
            "A score adds up p = <some>, so its spread grows as √p: dividing by √p keeps the softmax from choosing one "
            "item only.",
            adds_up,
        ),
        *definitions(
            "Where two shapes meet, the inner sizes must be equal, and disappear from the result.",
            "In one line, all rows at once: Y = softmax(mask(X Xᵀ)) X.",
            "The (n,n) matrix α is called the attention weights, or the attention pattern.",
            "For a single query q of one head, (p), with keys K and values V, (n,p) each: y = softmax(q Kᵀ / √p) V, "
            "(p)·(p,n) → (n), then (n)·(n,p) → (p).",
            "Keys and queries must have the same number of dims; values may have another.",
            "The shapes give a wrong transpose away: Qᵀ K is (p,n)·(n,p) → (p,p), which compares dims and not "
            "items, and has lost the n that a mask needs.",
        ),
    ],
    "cost": [
        sentence("For n items of d = <some>, in numbers of <count> bytes:", cost_opening),
        *definitions(
            "Twice the length is about four times the work, and four times the matrix.",
            "(Lengths count by 1024, as 1k = 1024; operations count by 1000.)",
            "The matrix need not exist: one pass over the items carries a running maximum, a running sum and a running "
            "output.",
            "The work stays the same, and the memory is that of the vectors, x and y.",
            "A recurrent network reads item by item and keeps one vector: h ← tanh(U h + W x), two matrices of d² "
            "numbers.",
            "Its work grows with n alone, but every step waits for the one before.",
            "So attention buys two things with its n²: nothing has to wait, and an item reaches any earlier one in a "
            "step, instead of through everything that lies between.",
            "With a cache, a further item costs one row and not the whole triangle anew.",
            "A recurrent network needs none, since its one vector must hold all that it read.",
        ),
        sentence(
            "In multiply-adds, with d = <count>; one item more, for attention with a cache of keys and values:",
            beside_opening,
        ),
    ],
}  # fmt: skip
TABLES = {"order": order_table, "shapes": shape_table, "cost": cost_table}


def told_of_order(judge) -> int:
    """Whether negative scores are told of where there are any."""
    high = judge.truth.dots[1]
    if any(high[j] < 0 for j in judge.truth.items):
        judge.holds("negative" in judge.told, "negative scores are not told of")
    judge.told.pop("negative", None)
    return 2


TOLD = {"order": told_of_order, "shapes": lambda judge: 5, "cost": lambda judge: 2}
