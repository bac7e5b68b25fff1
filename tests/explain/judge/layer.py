"""What --layer says: a transformer's layer whose matrices pick dims, head by head, and its JSON."""

import functools
import re

import numpy as np

from tests.explain.judge import headings
from tests.explain.judge.names import sub, things
from tests.explain.judge.pages import check_items, check_prose
from tests.explain.judge.programs import within
from tests.explain.judge.ranges import Range, exact, rounded, says
from tests.explain.judge.reading import Page, Prose, Table
from tests.explain.judge.rules import CAUSAL, Rule
from tests.explain.judge.sentences import Sentence, definitions, sentence
from tests.explain.judge.tables import MOST, add_up
from tests.explain.judge.texts import NOTES, required
from tests.explain.judge.truth import Truth, total

DIMS = 3  # of a vector that is shown


def heads_of(judge) -> list[Truth]:
    """Each head: attention in some of the dims, scores divided by √d."""
    x, d = judge.truth.x, judge.truth.d // judge.heads
    divided = Rule("√d", lambda s, i, j: s / np.sqrt(d), "", "")
    cut = [np.ascontiguousarray(x[:, h * d : (h + 1) * d]) for h in range(judge.heads)]
    return [Truth(part, judge.truth.i, CAUSAL, (divided,)) for part in cut]


def check_layer(judge, page: Page) -> None:
    """The page and its JSON."""
    judge.kept["heads"] = heads_of(judge)
    check_json(judge)
    judge.holds(page.title == "A transformer's layer, step by step", f"the title is {page.title!r}")
    check_items(judge, page.items, judge.truth.i)
    expected = headings.layer(judge)
    judge.holds([(one.heading, one.formula) for one in page.sections] == [(a, c) for a, _, c in expected], "headings")
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Prose):
                check_prose(judge, block.text, [*NOTES, *SENTENCES])
            else:
                judge.holds(section.heading in TABLES, f"a table under {section.heading!r}")
                TABLES[section.heading](judge, block)
    judge.says_all(
        *required(judge), "picks", "parts", "compares", "grows", "side by side", *(f"table {at}" for at in "1234")
    )


def check_json(judge) -> None:
    """Every entry, each head by itself."""
    made, heads = judge.json, judge.kept["heads"]
    keys = ["tokens", "position", "queries", "keys", "values", "scores", "scaled", "weights", "outputs", "y"]
    judge.holds(list(made) == keys, f"entries {list(made)}")
    judge.holds((made["tokens"], made["position"]) == (judge.tokens, judge.truth.i), "tokens or position")
    judge.holds(all(len(made[key]) == len(heads) for key in keys[2:9]), "heads")
    for h, head in enumerate(heads):
        judge.holds(made["queries"][h] == head.x[head.i].tolist(), f"the query of head {h}")
        own = head.x[: head.i + 1].tolist()
        judge.holds(made["keys"][h] == made["values"][h] == own, f"keys and values of head {h}")
        plain = functools.partial(head.score, stage=0)
        for key, truth in (("scores", plain), ("scaled", head.score), ("weights", head.weight)):
            judge.holds(len(made[key][h]) == head.i + 1, f"{key} of head {h}")
            for j, value in enumerate(made[key][h]):
                within(value, truth(j), f"{key} of head {h}, item {j}")
        for k, value in enumerate(made["outputs"][h]):
            within(value, Range(float(head.output[0][k]), float(head.output[1][k])), f"the output of head {h}")
    judge.holds(made["y"] == [value for row in made["outputs"] for value in row], "y is not the outputs side by side")


def vector(judge, text: str, values: list[float], what: str) -> None:
    """The first numbers of a vector, and that there are more."""
    more = len(values) > DIMS
    numbers = text.removesuffix(", …").split(", ")
    judge.holds(text.endswith(", …") == more and len(numbers) == min(DIMS, len(values)), f"{what}: {text!r}")
    for number, value in zip(numbers, values, strict=False):
        rounded(number, value, what)


def picks(judge, name: str, *found: str) -> None:
    judge.is_own(name)
    own, (dims, d) = judge.truth.d // judge.heads, found[-2:]
    judge.holds((int(found[0]) if len(found) > 2 else 1) == judge.heads, f"{judge.heads} heads")
    judge.holds((len(found) > 2) == (judge.heads > 1), "several")
    judge.claim("picks", (dims, int(d)) == (things(own, "dim"), own), f"a head has {own} dims")


def columns(judge, several: bool) -> None:
    judge.holds(several == (judge.heads > 1), f"{judge.heads} heads")


def parts(judge, name: str) -> None:
    judge.is_own(name)
    judge.once("parts")


def compares(judge, dims: str) -> None:
    judge.claim("compares", dims == things(judge.truth.d // judge.heads, "dim"), "another dim")


def grows(judge, products: str, of: str, root: str) -> None:
    d = judge.truth.d // judge.heads
    judge.claim("grows", (products, int(of)) == (things(d, "product"), d), f"a head has {d} dims")
    says(root, exact(float(np.sqrt(d))), f"√{d}")


def side_by_side(judge, y: str, heads: str, d: str, whole: str) -> None:
    own = judge.truth.d // judge.heads
    judge.claim(
        "side by side", (int(heads), int(d), whole) == (judge.heads, own, things(judge.truth.d, "number")), "sizes"
    )
    judge.holds(judge.heads * own == judge.truth.d, "the product")
    vector(judge, y, judge.json["y"], "y")


def queries(judge, table: Table) -> None:
    judge.once("table 1")
    judge.holds(table.head == ["head", f"{sub('q', judge.truth.i)}: what it asks by"] and not table.total, "columns")
    by_vector(judge, table, judge.json["queries"], "the query")


def outputs(judge, table: Table) -> None:
    judge.once("table 4")
    judge.holds(table.head == ["head", "output"] and not table.total, "other columns")
    by_vector(judge, table, judge.json["outputs"], "the output")


def by_vector(judge, table: Table, vectors: list[list[float]], what: str) -> None:
    judge.holds([row[0] for row in table.rows] == [str(h) for h in range(judge.heads)], "heads")
    for h, row in enumerate(table.rows):
        vector(judge, row[1], vectors[h], f"{what} of head {h}")


def scaled(judge, table: Table) -> None:
    judge.once("table 2")
    judge.holds(not table.total, "a sum of scores")
    rows, rest = by_head(judge, table)
    judge.holds(rest is None or not any(rest[1:]), "a score for several")
    for j, cells in rows:
        for h, cell in enumerate(cells):
            says(cell, judge.kept["heads"][h].score(j), f"the score of item {j} in head {h}")
            rounded(cell, judge.json["scaled"][h][j], f"the score of item {j} in head {h}")


def weights(judge, table: Table) -> None:
    judge.once("table 3")
    rows, rest = by_head(judge, table)
    judge.holds(table.total is not None and table.total[:2] == ["", "sum"], "no sums")
    for j, cells in rows:
        for h, cell in enumerate(cells):
            says(cell, judge.kept["heads"][h].weight(j), f"the weight of item {j} in head {h}")
            rounded(cell, judge.json["weights"][h][j], f"the weight of item {j} in head {h}")
    for h, cell in enumerate(table.total[2:]):
        says(cell, exact(1.0), f"the sum of head {h}")
        add_up(judge, [cells[h] for _, cells in rows] + ([rest[1 + h]] if rest else []), cell, f"head {h}")
        if rest:
            out = judge.others(rows)
            says(rest[1 + h], total(judge.kept["heads"][h].weights, out), f"the others' weights in head {h}")


def by_head(judge, table: Table) -> tuple[list[tuple[int, list[str]]], list[str] | None]:
    """The rows of items, and that of all others: heaviest in some head are those that have a row."""
    judge.holds(table.head == ["j", "item", *(f"head {h}" for h in range(judge.heads))], "other columns")
    rows = [(int(j), item, cells) for j, item, *cells in table.rows if j]
    rest = next(([item, *cells] for j, item, *cells in table.rows if not j), None)
    shown = [j for j, _, _ in rows]
    for j, item, _ in rows:
        own = judge.names.marked(j) + (" (itself)" if j == judge.truth.i else "")
        judge.holds(item == own, f"item {j} is called {item!r}")
    judge.holds(shown == sorted(set(shown)) and judge.truth.i in shown, "items out of order")
    judge.same("shown", shown)
    out = sorted(set(judge.truth.items) - set(shown))
    judge.holds(not out or len(judge.truth.items) > MOST, "an item without a row")
    told = re.fullmatch(r"… (\d+) more(, no heavier)?", rest[0]) if rest else None
    judge.holds(bool(told) == bool(out) and (not out or int(told[1]) == len(out)), f"{len(out)} others")
    if told and told[2]:
        made = judge.json["weights"]
        judge.holds(
            all(max(row[j] for j in out) <= min(row[j] for j in shown) for row in made), "one of them is heavier"
        )
    return [(j, cells) for j, _, cells in rows], rest


TABLES = {
    "1  Queries, keys, values": queries,
    "2  Scores, scaled": scaled,
    "3  Softmax": weights,
    "4  Weighted sums": outputs,
}
SENTENCES: list[Sentence] = [
    *(
        sentence(
            f"A transformer's layer lets <name> ask, be found and give by three learned matrices, in {heads}. Here the "
            "matrices only pick dims, so that nothing is hidden: head h takes <some>, from dim <count> · h on.",
            picks,
        )
        for heads in ("several heads at once (here <count>)", "one head here; most layers have several")
    ),
    sentence("<name> plays three parts: it asks as q, is found as k, and gives v.", parts),
    sentence("Each head compares in <some> of its own.", compares),
    sentence("A sum of <some> spreads like √<count> = <number>, which is divided away.", grows),
    sentence("y = <some>: <count> × <count> = <some>, mixed by W^O (here the identity).", side_by_side),
    sentence(
        "As in the first approach, head by head: every column adds up to 1, and each head may look elsewhere.",
        columns,
        True,
    ),
    sentence("As in the first approach: the column adds up to 1.", columns, False),
    *definitions(
        "The first approach compares items as they are.",
        "Here all three are alike.",
        "Each head adds up the values, each times its weight.",
    ),
]
