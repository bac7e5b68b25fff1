"""A page of the worked steps from its title to its last table: order, completeness, and every block."""

import re

from tests.explain.judge import headings, tables, texts
from tests.explain.judge.ranges import UntrueError
from tests.explain.judge.reading import Page, Prose, unescaped
from tests.explain.judge.sentences import read
from tests.explain.judge.worked import WORKED

MOST_NAMES = 200  # items up to which a title names all
AROUND = 4  # items on either side of the chosen one that it names at least
ONE_OF_MANY = re.compile(
    r"(?<![\d.,])(?<!line )(?<!Column )1 (?:more )?(?:items|numbers|dims|heads|products|weights|words|exponentials)\b"
)


def check_page(judge, page: Page) -> None:
    """The whole page."""
    judge.holds(page.title == "Self-attention, step by step", f"the title is {page.title!r}")
    check_items(judge, page.items, judge.truth.i)
    expected = headings.worked(judge)
    judge.holds([one.heading for one in page.sections] == [one[0] for one in expected], "other headings")
    for at, (section, (heading, _, latex)) in enumerate(zip(page.sections, expected, strict=True)):
        judge.holds(section.formula == latex, f"{heading} has the formula {section.formula}")
        judge.kept["rule"] = at - 2
        for block in section.blocks:
            try:
                if isinstance(block, Prose):
                    check_prose(judge, block.text, [*texts.NOTES, *WORKED])
                else:
                    tables.check_table(judge, heading, block)
            except UntrueError as error:
                raise UntrueError(f"under {heading!r}: {error}") from None
    judge.says_all(*required(judge))


def check_prose(judge, text: str, known: list) -> None:
    """One paragraph; never "1 items"."""
    veiled = judge.names.veiled(text)
    one = ONE_OF_MANY.search(re.sub("“[^“”]*”", "“”", veiled))
    judge.holds(not one, f"{one and one.group()!r} in {text!r}")
    read(veiled, known, judge)


def check_items(judge, line: str, chosen: int | None) -> None:
    """The names under the title: all of them, or those around the chosen one or the last."""
    n = judge.truth.n
    middle = n - 1 if chosen is None else chosen
    first, last = 0, n - 1
    if n > MOST_NAMES:
        first, last = max(0, middle - AROUND), min(n - 1, middle + AROUND)
    names = [judge.names.marked(j) for j in range(first, last + 1)]
    line = line.removeprefix("… ") if first else line
    line = line.removesuffix(" …") if last < n - 1 else line
    if chosen is not None:
        bold = re.search(r"(?:^|(?<= ))\*\*(.*)\*\*(?= |$)", line)
        judge.holds(bool(bold) and unescaped(bold[1]) == judge.names.marked(chosen), "another item is pointed out")
        line = line[: bold.start()] + bold[1] + line[bold.end() :]
    judge.holds(unescaped(line) == " ".join(names), f"the items are {names}, not {line!r}")


def required(judge) -> list[str]:
    """What must be said of this input."""
    truth, made = judge.truth, judge.json
    needed = ["opening", "vector", *texts.required(judge)]
    if truth.items:
        needed += ["scores", "products", "table 1  Scores"]
        lost = [j for j in truth.items if made["dot_products"][j] == 0 and truth.x[j].any() and j not in truth.angles]
        needed += ["lost dots"] * (bool(lost) and not truth.zero)
        needed += [f"rule {at}" for at in range(len(truth.rules))]
        needed += [f"table {headings.rule_heading(judge, len(truth.rules) - 1)}"] if truth.rules else []
    if judge.mask != ("causal",):
        needed += ["mask", *["hidden"] * (len(truth.items) < truth.n)]
    needed += ["rows", "table All rows"] * judge.matrix
    if not truth.in_softmax.any():
        return [*needed, "no weights"]
    needed += [
        "positive",
        "softmax",
        "one weight",
        "table 2  Softmax",
        "sum",
        "table 3  Weighted sum",
        "change",
        "length",
        "zero",
    ]
    needed += ["shift"] * bool(judge.shift)
    seen = truth.seen[: truth.reach]
    infinite = [j for j in truth.items if not truth.in_softmax[j]]
    lost = [j for j in truth.items if seen[j] and made["weights"][j] == 0 and j not in infinite]
    needed += ["infinite"] * bool(infinite) + ["underflow"] * bool(lost)
    if truth.zero:
        needed.append("own zero")
    elif made["at_right_angles"] or made["zero_vectors"]:
        needed += ["angles"] * bool(made["at_right_angles"]) + ["blank"] * bool(made["zero_vectors"])
    else:
        needed.append("nothing has" if truth.rules else "would get")
    if made["before"] and made["after"]:
        needed.append("table What changed")
        needed += ["nearest"]
        cosine = judge.json["similarity"]
        moved = not truth.rules and cosine is not None and cosine < 0.9999
        needed += ["steady"] * (truth.items == [truth.i] or (moved and judge.kept.get("new", 9) < 2))
    elif judge.text is not None:
        needed.append("nowhere")
    return needed
