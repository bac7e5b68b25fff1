"""The cost of attention: operations and bytes as the input grows, savings by a mask, and a recurrent network's cost.

Responsible for the counts, which are exact. A multiply-add is one multiplication and one addition.
"""

import numpy as np

from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.lesson import Lesson
from clearhead.explain.steps import Explanation
from clearhead.explain.story import notes_prose, title
from clearhead.rules.mask_kinds import Causal, Full, Mask, Window
from clearhead.rules.masks import visible
from clearhead.rules.named import name_of_mask
from clearhead.wording import byte_size, count, percent, short

LENGTHS = (128, 1024, 4096, 16384, 65536, 1048576)
TEXT_LENGTHS = {"a sentence": 20, "a paper": 8_000, "a book": 120_000}  # tokens, about
FLOAT_BYTES = 4  # float32, as in the kernels
LARGEST_COUNT = 8192  # items up to which a mask's pairs are counted one by one


def cost_lesson(e: Explanation) -> Lesson:
    """The lesson on cost: operations and bytes for this input and for longer ones of the same dim."""
    n, d = e.x.shape
    rows = tuple(attention_counts(length, d) for length in sorted({n, *LENGTHS}))
    page: list[Block] = [title("The cost of the steps", e), *notes_prose(e)]
    page += [*input_section(n, d), *growth_section(rows, n), *mask_section(e), *recurrence_section(e)]
    lengths = {"this input": n, **TEXT_LENGTHS}.items()
    fields = {
        "mask": name_of_mask(e.mask),
        "masked": [{"of": what, "length": length, "pairs": visible_pairs(e.mask, length)} for what, length in lengths],
        "recurrence": [{"of": what, "length": length} | recurrence_counts(length, d) for what, length in lengths],
    }
    return Lesson(rows, tuple(page), more=fields)


def input_section(n: int, d: int) -> list[Block]:
    """The counts for this input, each with its formula."""
    row = attention_counts(n, d)
    pairs = ("n(n + 1)/2", "n(n+1)/2")
    times = ("d · n(n + 1)/2", r"d \cdot n(n+1)/2")
    counted: list[tuple[str, tuple[str, str], str]] = [
        ("pairs j ≤ i", pairs, short(row["pairs"])),
        ("scores: multiply-adds", times, short(row["score_multiply_adds"])),
        ("softmax: exponentials", pairs, short(row["exponentials"])),
        ("weighted sum: multiply-adds", times, short(row["sum_multiply_adds"])),
        ("the n × n matrix", (f"{FLOAT_BYTES} n²", f"{FLOAT_BYTES} n^2"), byte_size(row["matrix_bytes"])),
        ("x and y alone", (f"2 · {FLOAT_BYTES} n d", rf"2 \cdot {FLOAT_BYTES} n d"), byte_size(row["vectors_bytes"])),
    ]
    cells = tuple((what, Formula(*formula), value) for what, formula, value in counted)
    columns = (Column("what", "left"), Column("formula", "left"), Column(f"n = {n:,}"))
    intro = f"For n items of d = {count(d, 'dim')}, in numbers of {FLOAT_BYTES} bytes:"
    return [Prose(intro), Table(columns, cells)]


def growth_section(rows: tuple[dict[str, int], ...], n: int) -> list[Block]:
    """The counts for longer inputs."""
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        counts = (row["pairs"], row["multiply_adds"], row["exponentials"])
        bytes_ = (row["matrix_bytes"], row["vectors_bytes"])
        cells.append((length_label(row["length"], n), *map(short, counts), *map(byte_size, bytes_)))
    headings = ("n", "pairs", "multiply-adds", "exponentials", "n × n matrix", "x and y")
    return [
        Heading("As the input grows"),
        Table(tuple(map(Column, headings)), tuple(cells), strong=([row["length"] for row in rows].index(n),)),
        Prose(
            "Twice the length is about four times the work, and four times the matrix. "
            "(Lengths count by 1024, as 1k = 1024; operations count by 1000.)"
        ),
        Prose(
            "The matrix need not exist: one pass over the items carries a running maximum, a running sum and "
            "a running output. The work stays the same, and the memory is that of the vectors, x and y."
        ),
    ]


def mask_section(e: Explanation) -> list[Block]:
    """The pairs that a mask leaves, compared with causal attention."""
    if not e.masked:
        return []
    n, name = len(e.tokens), name_of_mask(e.mask)
    rows: list[tuple[Cell, ...]] = []
    for what, length in {"this input": n, **TEXT_LENGTHS}.items():
        left = visible_pairs(e.mask, length)
        if left is not None:
            causal = length * (length + 1) // 2
            rows.append((what, short(length), short(causal), short(left), percent(left / causal)))
    columns = (Column("of", "left"), Column("n"), Column("causal"), Column(name), Column("of causal"))
    kind = "A mask that hides more than the future is called sparse attention."
    if rows and float(visible_pairs(e.mask, n) or 0) >= n * (n + 1) // 2:
        kind = "A mask that lets the future be seen is called bidirectional."
    text = f"{kind} Pairs under {name}, beside causal:"
    page: list[Block] = [Heading("What the mask changes"), Prose(text), Table(columns, tuple(rows))]
    if isinstance(e.mask, Window) and e.mask.left is not None and e.mask.right is not None:
        width = e.mask.left + e.mask.right + 1
        page.append(
            Prose(
                f"Each item sees at most {count(width, 'item')}, so the work grows with n and no longer with n²: at "
                f"most {width:,} n pairs. What lies further away is reached layer by layer, "
                f"{count(e.mask.left, 'item')} further each time."
            )
        )
    return page


def visible_pairs(mask: Mask, n: int) -> int | None:
    """The number of visible pairs under a mask, by a formula or by counting; None where counting would take too long.

    >>> from clearhead.rules.masks import causal, window
    >>> visible_pairs(causal(), 4), visible_pairs(window(1), 4), visible_pairs(window(2, 1), 10**6)
    (10, 7, 3999996)
    """
    match mask:
        case Causal():
            return n * (n + 1) // 2
        case Full():
            return n * n
        case Window(left, right):
            reach = [n - 1 if side is None else min(side, n - 1) for side in (left, right)]
            return n + sum(side * n - side * (side + 1) // 2 for side in reach)
    if n > LARGEST_COUNT:
        return None
    try:
        return int(np.count_nonzero(visible(mask, n, n, lead=(1,))))
    except ValueError:  # documents fix the length
        return None


def recurrence_section(e: Explanation) -> list[Block]:
    """The costs of attention and of a recurrent network for texts of several lengths."""
    n, d = e.x.shape
    columns = (Column("", "left"), Column("attention", "left"), Column("recurrent", "left"))
    compared = tuple((what, Formula(*ours), Formula(*theirs)) for what, ours, theirs in COMPARISON)
    numbers: list[tuple[Cell, ...]] = []
    for what, length in {"this input": n, **TEXT_LENGTHS}.items():
        row = recurrence_counts(length, d)
        numbers.append((what, short(length), *(short(row[name]) for name in COUNT_HEADINGS)))
    headings = (Column("of", "left"), Column("n"), *(Column(name) for name in COUNT_HEADINGS.values()))
    return [
        Heading("Beside a recurrent network"),
        Prose(
            "A recurrent network reads item by item and keeps one vector: h ← tanh(U h + W x), two matrices of d² "
            "numbers. Its work grows with n alone, but every step waits for the one before."
        ),
        Table(columns, compared),
        Prose(f"In multiply-adds, with d = {d:,}; one item more, for attention with a cache of keys and values:"),
        Table(headings, tuple(numbers)),
        Prose(
            "So attention buys two things with its n²: nothing has to wait, and an item reaches any earlier one in a "
            "step, instead of through everything that lies between. With a cache, a further item costs one row and not "
            "the whole triangle anew. A recurrent network needs none, since its one vector must hold all that it read."
        ),
    ]


COMPARISON = (
    ("multiply-adds", ("n(n + 1) d", "n(n+1) d"), ("2 n d²", "2 n d^2")),
    ("steps one after another", ("1", "1"), ("n", "n")),
    ("longest way between items", ("1", "1"), ("n − 1", "n - 1")),
    ("one item more, all anew", ("(n + 1)(n + 2) d", "(n+1)(n+2) d"), ("2 (n + 1) d²", "2 (n+1) d^2")),
    ("one item more, from what is kept", ("2 (n + 1) d", "2 (n+1) d"), ("2 d²", "2 d^2")),
    ("bytes kept", (f"2 · {FLOAT_BYTES} n d", rf"2 \cdot {FLOAT_BYTES} n d"), (f"{FLOAT_BYTES} d", f"{FLOAT_BYTES} d")),
)
COUNT_HEADINGS = {
    "attention": "attention",
    "recurrent": "recurrent",
    "attention_more": "one more",
    "recurrent_more": "one more, recurrent",
}


def recurrence_counts(n: int, d: int) -> dict[str, int]:
    """Multiply-adds of attention and a recurrent network over n items, and of one more item.

    >>> recurrence_counts(2, 3)
    {'attention': 18, 'recurrent': 36, 'attention_more': 18, 'recurrent_more': 18}
    """
    return {
        "attention": attention_counts(n, d)["multiply_adds"],
        "recurrent": 2 * n * d * d,
        "attention_more": 2 * (n + 1) * d,
        "recurrent_more": 2 * d * d,
    }


def attention_counts(n: int, d: int) -> dict[str, int]:
    """The exact counts for n items of d dims.

    >>> attention_counts(3, 2)["pairs"], attention_counts(3, 2)["multiply_adds"], attention_counts(3, 2)["matrix_bytes"]
    (6, 24, 36)
    """
    pairs = n * (n + 1) // 2
    return {
        "length": n,
        "dim": d,
        "pairs": pairs,
        "score_multiply_adds": d * pairs,
        "exponentials": pairs,
        "sum_multiply_adds": d * pairs,
        "multiply_adds": 2 * d * pairs,
        "matrix_bytes": FLOAT_BYTES * n * n,
        "vectors_bytes": 2 * FLOAT_BYTES * n * d,
    }


def length_label(length: int, this: int) -> str:
    """A length in units of 1024 where it is a multiple; the input's own is marked."""
    name = f"{length:,}"
    if length % 2**20 == 0:
        name = f"{length // 2**20}M"
    elif length % 2**10 == 0:
        name = f"{length // 2**10}k"
    return f"this: {name}" if length == this else name
