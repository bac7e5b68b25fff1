"""The tables of the worked steps: every cell, every sum, and what is said of items without a row."""

import re

import numpy as np

from tests.explain.judge.names import sub
from tests.explain.judge.programs import number
from tests.explain.judge.ranges import NUMBER, Range, UntrueError, abs_finite, exact, figure, rounded, says
from tests.explain.judge.reading import Table
from tests.explain.judge.truth import total

MOST = 32  # items up to which each has a row
BAR = 20  # characters of the longest bar


def check_table(judge, heading: str, table: Table) -> None:
    """One table, known by the heading that it stands under."""
    judge.once(f"table {heading}")
    if heading.startswith("1 "):
        scores(judge, table)
    elif heading.startswith("2 "):
        softmax(judge, table)
    elif heading.startswith("3 "):
        weighted_sum(judge, table)
    elif heading.startswith("Rule"):
        rules(judge, table)
    elif heading == "What changed":
        judge.vocabulary.check_neighbours(judge, table)
    elif heading == "All rows":
        all_rows(judge, table)
    else:
        raise UntrueError(f"a table under {heading!r}")


def item_rows(judge, table: Table, name: str = "") -> tuple[list[tuple[int, list[str]]], list[str] | None]:
    """The rows of items, and that of all others; `name` is what stands before an item's."""
    found, rest = [], None
    for j, item, *more in table.rows:
        if not j:
            judge.holds(rest is None, "two rows for all others")
            rest = [item, *more]
            continue
        judge.holds(rest is None and int(j) in judge.truth.items, f"item {j} is not seen, or stands after the others")
        own = judge.names.marked(int(j)) + (" (itself)" if int(j) == judge.truth.i else "")
        judge.holds(re.sub(name, "", item, count=1) == own, f"item {j} is called {item!r}, not {own!r}")
        found.append((int(j), [item, *more]))
    shown = [j for j, _ in found]
    judge.holds(shown == sorted(set(shown)), "items out of order")
    judge.same("shown", shown)
    check_rest(judge, shown, rest)
    return found, rest


def check_rest(judge, shown: list[int], rest: list[str] | None) -> None:
    """How many items have no row, and that none is heavier if it is said."""
    others = [j for j in judge.truth.items if j not in shown]
    judge.holds(not others or len(judge.truth.items) > MOST, "an item without a row")
    if not others:
        judge.holds(rest is None, "there are no others")
        return
    judge.holds(rest is not None, f"{len(others)} items are left out in silence")
    told = re.fullmatch(r"… (\d+) more(, no heavier)?", rest[0])
    judge.holds(bool(told) and int(told[1]) == len(others), f"{len(others)} others, not {rest[0]!r}")
    if told[2]:
        heaviest, lightest = max(others, key=judge.middle), min(shown, key=judge.middle)
        judge.holds(
            judge.middle(heaviest) <= judge.middle(lightest), f"item {heaviest} is heavier than item {lightest}"
        )


def bar(judge, cell: str, text: str, part: Range) -> None:
    """A bar as long as its number; none for 0."""
    if text in ("0", "−∞"):
        judge.holds(not cell, f"a bar for {text}")
        return
    judge.holds(
        bool(re.fullmatch("█+|░+", cell)) and (cell[0] == "░") == (text[0] == "-"), f"the bar {cell!r} of {text}"
    )
    ends = sorted(max(1.0, BAR * abs(end)) for end in (part.lo, part.hi))
    judge.holds(
        ends[0] - 0.51 <= len(cell) <= max(ends[1], BAR * (part.lo < 0 < part.hi)) + 0.51, f"a bar of {len(cell)}"
    )


def scores(judge, table: Table) -> None:
    judge.holds(table.head == ["j", "item", "score", ""] and not table.total, "other columns")
    truth = judge.truth
    largest = max(max(abs_finite(end) for end in (judge.dot(j).lo, judge.dot(j).hi)) for j in truth.items) or 1.0
    rows, _ = item_rows(judge, table)
    for j, (_, score, drawn) in rows:
        says(score, judge.dot(j), f"the dot product with item {j}")
        if j not in judge.json["at_right_angles"]:
            rounded(score, judge.json["dot_products"][j] * truth.scale, f"the dot product with item {j}")
        bar(judge, drawn, score, judge.dot(j) / exact(largest))


def rules(judge, table: Table) -> None:
    truth = judge.truth
    heads = [f"after {rule.name}" for rule in truth.rules]
    judge.holds(table.head == ["j", "item", "score", *heads] and not table.total, "other columns")
    for j, (_, *cells) in item_rows(judge, table)[0]:
        for stage, cell in enumerate(cells):
            says(cell, truth.score(j, stage) if stage else judge.dot(j), f"stage {stage} of item {j}")


def softmax(judge, table: Table) -> None:
    own = "s" if judge.truth.rules else "score"
    judge.holds(table.head[:3] == ["j", "item", own] and table.head[4:] == ["weight", ""], "other columns")
    head = re.fullmatch(rf"exp\({own}(?: − ({NUMBER}))?\)", table.head[3])
    judge.holds(bool(head) and bool(head[1]) == bool(judge.shift), f"{table.head[3]} where {judge.shift} is subtracted")
    if judge.shift:
        says(head[1], exact(judge.shift), "what is subtracted")
    truth, top = judge.truth, judge.json["weights"]
    largest = max(weight for weight in top if weight is not None)
    rows, rest = item_rows(judge, table)
    for j, (_, score, exponential, weight, drawn) in rows:
        says(score, truth.score(j) if truth.rules else judge.dot(j), f"the score of item {j}")
        says(exponential, judge.exponential(j), f"the exponential of item {j}")
        says(weight, truth.weight(j), f"the weight of item {j}")
        if truth.rules or j not in judge.json["at_right_angles"]:
            rounded(score, number(judge.json["scores"][j]), f"the score of item {j}")
        rounded(exponential, judge.json["exponentials"][j], f"the exponential of item {j}")
        rounded(weight, judge.json["weights"][j], f"the weight of item {j}")
        bar(judge, drawn, weight, exact(top[j] / largest))
    others = judge.others(rows)
    if rest:
        judge.holds((rest[1], rest[4]) == ("", ""), "a score for several")
        says(rest[2], total(judge.exponential_ends, others), "the exponentials of the others")
        says(rest[3], total(truth.weights, others), "the weights of the others")
    judge.holds(table.total is not None, "no sums")
    j, name, score, sums, whole, drawn = table.total
    judge.holds((j, name, score, drawn) == ("", "sum", "", ""), "the last row")
    says(sums, judge.sum, "the sum of the exponentials")
    says(whole, exact(1.0), "the sum of the weights")
    add_up(judge, [row[2] for _, row in rows] + ([rest[2]] if rest else []), sums, "the exponentials")
    add_up(judge, [row[3] for _, row in rows] + ([rest[3]] if rest else []), whole, "the weights")


def add_up(judge, column: list[str], whole: str, what: str) -> None:
    """A column and the sum under it."""
    together = Range(0.0, 0.0)
    for cell in column:
        together = together + figure(cell)
    judge.equation(together, whole, f"{what}, added up")


def weighted_sum(judge, table: Table) -> None:
    truth, dims = judge.truth, judge.dims
    more = [""] if dims < truth.values.shape[1] else []
    times = f"weight × {'item' if truth.values is truth.x else 'value'}"
    judge.holds(table.head == ["j", times, *(f"dim {k}" for k in range(dims)), *more], "other columns")
    rows, rest = item_rows(judge, table, r"^\S+ × ")
    low, high = truth.parts()

    def row(cells: list[str], lows: np.ndarray, highs: np.ndarray, what: str) -> None:
        judge.holds(cells[dims:] == ["…"] * len(more), "the dims that are left out")
        for k in range(dims):
            says(cells[k], Range(float(lows[k]), float(highs[k])), f"{what} at dim {k}")

    for j, (item, *cells) in rows:
        weight = item.partition(" ")[0]
        says(weight, truth.weight(j), f"the weight of item {j}")
        row(cells, low[j], high[j], f"item {j}")
        for k in range(dims):
            judge.equation(figure(weight) * exact(float(truth.values[j, k])), cells[k], f"{weight} × item {j}, dim {k}")
    others = judge.others(rows)
    if rest:
        row(rest[1:], *zip_total((low, high), others), "the others")
    judge.holds(table.total is not None and table.total[:2] == ["", f"sum = {sub('y', truth.i)}"], "no sum")
    row(table.total[2:], *truth.output, "the output")  # type: ignore[call-arg]
    for k in range(dims):
        rounded(table.total[2 + k], judge.json["output"][k], f"the output at dim {k}")
        column = [cells[1 + k] for _, cells in rows] + ([rest[1 + k]] if rest else [])
        add_up(judge, column, table.total[2 + k], f"dim {k}")


def zip_total(ends: tuple[np.ndarray, np.ndarray], items: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The sums of some rows, each end."""
    sums = [total((ends[0][:, k], ends[1][:, k]), items) for k in range(ends[0].shape[1])]
    return np.array([one.lo for one in sums]), np.array([one.hi for one in sums])


def all_rows(judge, table: Table) -> None:
    n = judge.truth.n
    judge.holds(table.head == ["i", "item", *map(str, range(n))] and not table.total, "other columns")
    judge.holds([row[:2] for row in table.rows] == [[str(i), judge.names.marked(i)] for i in range(n)], "names")
    for i, row in enumerate(judge.all_rows):
        for j, cell in enumerate(table.rows[i][2:]):
            judge.holds((cell == "·") == (not row.seen[j]), f"whether item {i} sees item {j}")
            if cell != "·":
                says(cell, row.weight(j), f"the weight of items {i} and {j}")
                rounded(cell, judge.json["matrix"]["weights"][i][j], f"the weight of items {i} and {j}")
