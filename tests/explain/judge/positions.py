"""What --steps positions says: weights with the past as it is and in reverse, by three ways to bring positions in."""

import numpy as np

from tests.explain.judge.names import things
from tests.explain.judge.pages import check_items, check_prose
from tests.explain.judge.programs import within
from tests.explain.judge.ranges import Range, exact, rounded, says
from tests.explain.judge.reading import Page, Prose, Table
from tests.explain.judge.rules import CAUSAL, Rule
from tests.explain.judge.sentences import Sentence, definitions, sentence
from tests.explain.judge.texts import NOTES, required
from tests.explain.judge.truth import EPS, Ends, Truth

HEADINGS = [
    ("", None, None),
    ("ALiBi", "s ← s − 0.5 · |i − j|", r"s \leftarrow s - 0.5\, |i - j|"),
    ("Rotary", "score = R(i) xᵢ · R(j) xⱼ", r"\mathrm{score} = R(i)\, x_i \cdot R(j)\, x_j"),
]
KINDS = ("plain", "ALiBi", "rotary")
MOST = 32  # rows, and the item itself
AWAY = Rule("alibi", lambda s, i, j: s - 0.5 * np.abs(i - j), "", "")


class Turned(Truth):
    """Items turned by their positions: an angle is known to the last digit of how many turns it has."""

    @property
    def dots(self) -> Ends:
        with np.errstate(all="ignore"):
            low, high = vars(Truth)["dots"].func(self)
            size = (np.abs(self.keys) * np.abs(self.x[self.i])).sum(axis=1)
        slack = 8 * (self.n + 2) * EPS * size
        return low - slack, high + slack


def turned(x: np.ndarray) -> np.ndarray:
    """Dims k and k + pairs of item j as a complex number, turned by j · 10000^(−k / pairs)."""
    n, d = x.shape
    pairs = d // 2
    plane = x[:, :pairs] + 1j * x[:, pairs : 2 * pairs]
    plane = plane * np.exp(1j * np.outer(np.arange(n), 10_000.0 ** -(np.arange(pairs) / max(pairs, 1))))
    return np.concatenate([plane.real, plane.imag, x[:, 2 * pairs :]], axis=1)


def rows(judge) -> dict[str, tuple[Ends, Ends]]:
    """The weights of each kind, in order and reversed, item by item."""
    i = judge.truth.i
    x, backwards = judge.truth.x[: i + 1], [*range(i - 1, -1, -1), i]
    place = np.argsort(backwards)

    def both(kind: str) -> tuple[Ends, Ends]:
        made = []
        for items in (x, x[backwards]):
            one = Turned(turned(items), i, CAUSAL) if kind == "rotary" else Truth(items, i, CAUSAL)
            if kind == "ALiBi":
                one = Truth(items, i, CAUSAL, (AWAY,))
            made.append(one.weights)
        return made[0], tuple(end[place] for end in made[1])

    return {kind: both(kind) for kind in KINDS}


def check_positions(judge, page: Page) -> None:
    """The page and its JSON."""
    made, truth = judge.json, judge.truth
    judge.holds(list(made) == ["steps", "tokens", "length", "dim", "rows", "why", "notes"], f"entries {list(made)}")
    sizes = (made["steps"], made["tokens"], made["length"], made["dim"], made["why"])
    judge.holds(sizes == ("positions", judge.tokens, *truth.x.shape, {}), "sizes")
    judge.kept["both"] = rows(judge)
    check_rows(judge)
    judge.holds(page.title == "What order means", f"the title is {page.title!r}")
    check_items(judge, page.items, truth.i)
    expected = [(heading, latex) for heading, _, latex in (HEADINGS if truth.i > 1 else HEADINGS[:1])]
    judge.holds([(one.heading, one.formula) for one in page.sections] == expected, "headings or formulas")
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Prose):
                check_prose(judge, block.text, [*NOTES, *SENTENCES])
            else:
                table(judge, block)
    told = ["reversed", "ALiBi", "rotary", "table"] if truth.i > 1 else ["too early"]
    judge.says_all(*required(judge), *told)


def check_rows(judge) -> None:
    """JSON's weights."""
    made = judge.json["rows"]
    judge.holds(len(made) == judge.truth.i + 1, f"{len(made)} rows")
    for j, row in enumerate(made):
        judge.holds(list(row) == ["item", "token", *KINDS], f"entries {list(row)}")
        judge.holds((row["item"], row["token"]) == (j, judge.tokens[j]), f"row {j}")
        for kind, ends in judge.kept["both"].items():
            for value, (low, high) in zip(row[kind], ends, strict=True):
                within(value, Range(float(low[j]), float(high[j])), f"{kind} of item {j}")


def moved(judge, kind: str) -> float:
    """By how much the weights of a kind differ at most, in JSON."""
    return max(abs(a - b) for a, b in (row[kind] for row in judge.json["rows"]))


def too_early(judge, name: str, before: str) -> None:
    judge.is_own(name)
    judge.claim("too early", before == things(judge.truth.i, "item") and judge.truth.i < 2, f"{judge.truth.i} before")


def reverse(judge, before: str, name: str) -> None:
    judge.is_own(name)
    judge.claim("reversed", int(before) == judge.truth.i > 1, f"{judge.truth.i} before")


def stays(judge, *most: str) -> None:
    difference = moved(judge, "plain")
    judge.holds(bool(most) == bool(difference), f"they differ by {difference}")
    if most:
        rounded(most[0], difference, "the largest difference")
        room = max(float((high - low).max()) for low, high in judge.kept["both"]["plain"])
        judge.holds(difference <= room, "this is more than rounding")


def moves(judge, kind: str, most: str) -> None:
    judge.once(kind)
    rounded(most, moved(judge, kind), "the largest difference")
    judge.holds(kind != "rotary" or judge.truth.d > 1, "nothing is turned")


def no_partner(judge) -> None:
    judge.claim("rotary", judge.truth.d == 1, f"there are {judge.truth.d} dims")


def last_stays(judge) -> None:
    judge.holds(judge.truth.d % 2 == 1 < judge.truth.d, f"there are {judge.truth.d} dims")


def table(judge, made: Table) -> None:
    """Every weight of every kind."""
    judge.once("table")
    i = judge.truth.i
    heads = [f"{kind}{order}" for kind in KINDS for order in ("", " reversed")]
    judge.holds(made.head == ["j", "item", *heads] and not made.total, "other columns")
    shown = {int(row[0]): row for row in made.rows if row[0]}
    judge.holds(list(shown) == sorted(shown) and i in shown and len(shown) >= min(i + 1, MOST), "how many rows")
    values = {j: [v for kind in KINDS for v in judge.json["rows"][j][kind]] for j in range(i + 1)}
    for j, row in shown.items():
        own = judge.names.marked(j) + (" (itself)" if j == i else "")
        judge.holds(row[1] == own, f"item {j} is called {row[1]!r}")
        for cell, value in zip(row[2:], values[j], strict=True):
            rounded(cell, value, f"a weight of item {j}")
    rest = [j for j in range(i + 1) if j not in shown]
    more = [row for row in made.rows if not row[0]]
    judge.holds(len(more) == bool(rest), "a row for all others")
    if rest:
        judge.holds(more[0][1] == f"… {len(rest)} more", f"{len(rest)} others")
        for k, cell in enumerate(more[0][2:]):
            says(cell, exact(float(sum(values[j][k] for j in rest))), "the weights of the others")


SENTENCES: list[Sentence] = [
    sentence("<name> has <some> before it, and no order among them: choose a later --position.", too_early),
    sentence("Reverse the <count> items before <name>.", reverse),
    *(
        sentence(
            "A score compares two items wherever they stand, and a sum does not ask for the order: every weight "
            f"stays, {alike}, and the output with it.",
            stays,
        )
        for alike in ("to the last digit", "but for rounding, <number> at most")
    ),
    sentence(
        "Each score loses 0.5 for every item of distance. With the past reversed, weights move by up to <number>.",
        moves, "ALiBi",
    ),
    sentence("With the past reversed, weights move by up to <number>.", moves, "rotary"),
    sentence("One dim alone has no partner to be turned with, so here nothing is.", no_partner),
    sentence("The last dim has no partner, and stays.", last_stays),
    *definitions(
        "Attention sees a set of items, not a sequence; only the mask knows what came before.",
        "Queries and keys are turned by an angle that grows with their position, pair of dims by pair of dims: the dot "
        "product then depends on i − j.",
        "Transformers bring positions in one of these ways, or add a vector for each position to the items.",
    ),
]  # fmt: skip
