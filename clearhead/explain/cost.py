"""What attention costs: operations and bytes as the input grows, what a mask saves, and a recurrent network beside it.

Decides what is counted; every count is exact. A multiply-add is one multiplication and one addition.
"""

import numpy as np

from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.lesson import Lesson
from clearhead.explain.steps import Explanation
from clearhead.explain.story import noted, title
from clearhead.rules.masks import Causal, Full, Mask, Window, visible
from clearhead.rules.named import name_of_mask
from clearhead.wording import byte_size, count, percent, short

LENGTHS = (128, 1024, 4096, 16384, 65536, 1048576)
TEXTS = {"a sentence": 20, "a paper": 8_000, "a book": 120_000}  # tokens, about
FLOAT = 4  # bytes of a number as the kernels hold it, float32
LARGEST_COUNT = 8192  # items of which a mask's pairs are counted one by one


def lesson(e: Explanation) -> Lesson:
    """Operations and bytes, for this input and for longer ones of the same dim."""
    n, d = e.x.shape
    rows = tuple(costs(length, d) for length in sorted({n, *LENGTHS}))
    page: list[Block] = [title("The cost of the steps", e), *noted(e)]
    page += [*this_input(n, d), *as_it_grows(rows, n), *masked(e), *beside_recurrence(e)]
    lengths = {"this input": n, **TEXTS}.items()
    more = {
        "mask": name_of_mask(e.mask),
        "masked": [{"of": what, "length": length, "pairs": pairs_of(e.mask, length)} for what, length in lengths],
        "recurrence": [{"of": what, "length": length} | beside(length, d) for what, length in lengths],
    }
    return Lesson(rows, tuple(page), more=more)


def this_input(n: int, d: int) -> list[Block]:
    """What is counted, by which formula, and what it comes to."""
    row = costs(n, d)
    pairs = ("n(n + 1)/2", "n(n+1)/2")
    times = ("d · n(n + 1)/2", r"d \cdot n(n+1)/2")
    counted: list[tuple[str, tuple[str, str], str]] = [
        ("pairs j ≤ i", pairs, short(row["pairs"])),
        ("scores: multiply-adds", times, short(row["score_multiply_adds"])),
        ("softmax: exponentials", pairs, short(row["exponentials"])),
        ("weighted sum: multiply-adds", times, short(row["sum_multiply_adds"])),
        ("the n × n matrix", (f"{FLOAT} n²", f"{FLOAT} n^2"), byte_size(row["matrix_bytes"])),
        ("x and y alone", (f"2 · {FLOAT} n d", rf"2 \cdot {FLOAT} n d"), byte_size(row["vectors_bytes"])),
    ]
    cells = tuple((what, Formula(*formula), value) for what, formula, value in counted)
    columns = (Column("what", "left"), Column("formula", "left"), Column(f"n = {n:,}"))
    intro = f"For n items of d = {count(d, 'dim')}, in numbers of {FLOAT} bytes:"
    return [Prose(intro), Table(columns, cells)]


def as_it_grows(rows: tuple[dict[str, int], ...], n: int) -> list[Block]:
    """The same for longer inputs."""
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        counts = (row["pairs"], row["multiply_adds"], row["exponentials"])
        bytes_ = (row["matrix_bytes"], row["vectors_bytes"])
        cells.append((length_name(row["length"], n), *map(short, counts), *map(byte_size, bytes_)))
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


def masked(e: Explanation) -> list[Block]:
    """What a sparse mask leaves of the pairs."""
    if not e.masked:
        return []
    n, name = len(e.tokens), name_of_mask(e.mask)
    rows: list[tuple[Cell, ...]] = []
    for what, length in {"this input": n, **TEXTS}.items():
        left = pairs_of(e.mask, length)
        if left is not None:
            causal = length * (length + 1) // 2
            rows.append((what, short(length), short(causal), short(left), percent(left / causal)))
    columns = (Column("of", "left"), Column("n"), Column("causal"), Column(name), Column("of causal"))
    kind = "A mask that hides more than the future is called sparse attention."
    if rows and float(pairs_of(e.mask, n) or 0) >= n * (n + 1) // 2:
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


def pairs_of(mask: Mask, n: int) -> int | None:
    """How many pairs a mask lets be seen: by a formula, else counted; None where that would take too long.

    >>> from clearhead.rules.masks import causal, window
    >>> pairs_of(causal(), 4), pairs_of(window(1), 4), pairs_of(window(2, 1), 10**6)
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
    except ValueError:  # documents have their own lengths
        return None


def beside_recurrence(e: Explanation) -> list[Block]:
    """Attention and a recurrent network, by what each costs for texts of three lengths."""
    n, d = e.x.shape
    columns = (Column("", "left"), Column("attention", "left"), Column("recurrent", "left"))
    compared = tuple((what, Formula(*ours), Formula(*theirs)) for what, ours, theirs in COMPARED)
    numbers: list[tuple[Cell, ...]] = []
    for what, length in {"this input": n, **TEXTS}.items():
        row = beside(length, d)
        numbers.append((what, short(length), *(short(row[name]) for name in COUNTED)))
    headings = (Column("of", "left"), Column("n"), *(Column(name) for name in COUNTED.values()))
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


COMPARED = (
    ("multiply-adds", ("n(n + 1) d", "n(n+1) d"), ("2 n d²", "2 n d^2")),
    ("steps one after another", ("1", "1"), ("n", "n")),
    ("longest way between items", ("1", "1"), ("n − 1", "n - 1")),
    ("one item more, all anew", ("(n + 1)(n + 2) d", "(n+1)(n+2) d"), ("2 (n + 1) d²", "2 (n+1) d^2")),
    ("one item more, from what is kept", ("2 (n + 1) d", "2 (n+1) d"), ("2 d²", "2 d^2")),
    ("bytes kept", (f"2 · {FLOAT} n d", rf"2 \cdot {FLOAT} n d"), (f"{FLOAT} d", f"{FLOAT} d")),
)
COUNTED = {
    "attention": "attention",
    "recurrent": "recurrent",
    "attention_more": "one more",
    "recurrent_more": "one more, recurrent",
}


def beside(n: int, d: int) -> dict[str, int]:
    """Multiply-adds of both over n items, and of one item more.

    >>> beside(2, 3)
    {'attention': 18, 'recurrent': 36, 'attention_more': 18, 'recurrent_more': 18}
    """
    return {
        "attention": costs(n, d)["multiply_adds"],
        "recurrent": 2 * n * d * d,
        "attention_more": 2 * (n + 1) * d,
        "recurrent_more": 2 * d * d,
    }


def costs(n: int, d: int) -> dict[str, int]:
    """What n items of d dims cost, exactly.

    >>> costs(3, 2)["pairs"], costs(3, 2)["multiply_adds"], costs(3, 2)["matrix_bytes"]
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
        "matrix_bytes": FLOAT * n * n,
        "vectors_bytes": 2 * FLOAT * n * d,
    }


def length_name(length: int, here: int) -> str:
    """A length as people say it."""
    name = f"{length:,}"
    if length % 2**20 == 0:
        name = f"{length // 2**20}M"
    elif length % 2**10 == 0:
        name = f"{length // 2**10}k"
    return f"this: {name}" if length == here else name
