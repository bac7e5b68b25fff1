"""Random inputs of clearhead explain: vectors, names, texts, masks, rules, pages; odd ones more often than they come.

case(seed)     the same case for the same seed, on every machine
"""

import csv
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.explain import Explanation, explain
from clearhead.explain.block import ModelPage
from clearhead.explain.inputs import from_file, from_text
from clearhead.rules.named import named_mask, named_score
from clearhead.words import load, read_embeddings
from tests.explain.judge import rules
from tests.explain.judge.rules import CAUSAL, Rule, typed
from tests.explain.kinds import Draw, axes, decimals, mixed, orthogonal, steep, tiny, usual, vectors

SENTENCES = (Path(__file__).parents[1] / "words" / "sentences.txt").read_text("utf-8").splitlines()
PAGES = ["worked"] * 12 + ["matrix"] * 4 + ["layer", "layer", "order", "shapes", "cost"]
PAGES += ["what if"] * 7 + ["positions"] * 3 + ["quiz"] * 2 + ["model"]
WHAT_IF = [
    "no-values", "values=keys", "keys=values", "no-softmax", "scores-as-weights", "no-scale", "divide-by-d",
    "mask-after-softmax", "no-mask",
]  # fmt: skip
ODD_NAMES = [
    "", "1", "the the", "“", "”", '"', "'", "''", "`", "[a]", "{b}", "(c)", "50%", "a\nb", "a | b", "$x$", "\\", "_",
    "*", "**", "#", "~", "^", "&", "<b>", "x0", "…", "a (itself)", "b  (new)", "≈a", "−∞", "0.5000", "1 items", "é",
    "море", "👩\u200d🚀", "  b ", "is the zero vector", "a” is the zero vector, so every score is 0. “b", "“a” (0)",
    "\x1b[31mred", "\u202eright", "sum", "tab\t", "x. y", "a, b and c", "word " * 12 + "end", "… 3 more", "exp(0)",
    "%s", "a & b", "7e9",
]  # fmt: skip
ODD_TEXTS = [
    "3 men paid 1,200 dollars in 1984!", "The café was naïve.", "zzxqy blorped", "doomscrolling all day, unfriended",
    "I ❤️ море 👩\u200d🚀", "don't won't can't", "?! river :-) (bank) “quoted” — and… more", "the the the", "HELP",
    "a", "7", "море", "jumped 20th ٣ x2", "wi‑fi state-of-the-art", "he'd've gone; they’re “here”",
    "antidisestablishmentarianismly",
]  # fmt: skip
PYTHON_RULES: list[tuple[Callable[..., Any], Callable[[np.ndarray, int, np.ndarray], np.ndarray]]]


def hide_first(score, batch, head, query, key):
    """−∞ for the first item."""
    return np.where(key == 0, -np.inf, score)


def hide_two(score, batch, head, query, key):
    """−∞ for the first two items."""
    return np.where(key < 2, -np.inf, score)


def hide_all(score, batch, head, query, key):
    """−∞ for all."""
    return np.where(key >= 0, -np.inf, score)


def far_is_less(score, batch, head, query, key):
    """Less, the farther away."""
    return score - 0.25 * (query - key)


def turned(score, batch, head, query, key):
    """Largest for what is least alike."""
    return score * (key - query + 3)


PYTHON_RULES = [
    (hide_first, lambda s, i, j: np.where(j == 0, -np.inf, s)),
    (hide_two, lambda s, i, j: np.where(j < 2, -np.inf, s)),
    (hide_all, lambda s, i, j: np.where(j >= 0, -np.inf, s)),
    (far_is_less, lambda s, i, j: s - 0.25 * (i - j)),
    (turned, lambda s, i, j: s * (j - i + 3)),
]


@dataclass(frozen=True, eq=False)
class Case:
    """One input and which page is asked for."""

    seed: int
    page: str
    x: np.ndarray
    tokens: tuple[str, ...]
    position: int
    mask: tuple
    rules: tuple[Rule, ...]
    explained: Callable[[], Explanation]
    heads: int = 1
    text: str | None = None
    embeddings: Path | None = None
    what: str = ""  # which formula is asked for
    keys: np.ndarray | None = None
    values: np.ndarray | None = None
    scale: float = 1.0
    given: str = "-1"  # the position as it is typed
    head: tuple[int, int] = (0, 0)  # of the model

    def __str__(self) -> str:
        what = repr(self.text) if self.text is not None else f"{self.x.tolist()!r} {list(self.tokens)!r}"
        asked = f"position {self.position}, mask {typed(self.mask)}, rules {[rule.name for rule in self.rules]}"
        more = f", keys {self.keys.tolist()!r}, values {self.values.tolist()!r}" if self.keys is not None else ""
        return f"{self.page} {self.what} of {what[:600]}, {asked}, {self.heads} heads, head {self.head}{more[:600]}"


def case(seed: int, folder: Path | None = None) -> Case:
    """The case of a seed; files that it needs are written into `folder`, and without one there are none."""
    draw = Draw(seed)
    page = draw.one_of(PAGES)
    if page == "model":
        return model_case(seed, draw)
    if page == "what if" and draw.chance(0.6):
        return of_roles(seed, draw)
    if draw.chance(0.25):
        return text_case(seed, draw, page, folder)
    x = vectors(draw, page)
    tokens = names(draw, len(x))
    mask, score, own = what_is_asked(draw, len(x), page)
    position = draw.whole(0, len(x) - 1) if draw.chance(0.7) else len(x) - 1
    heads = draw.one_of([h for h in range(1, x.shape[1] + 1) if x.shape[1] % h == 0][:6])
    given: int | str = draw.one_of([position, position - len(x)])
    if draw.chance(0.3):
        given, position = named_position(tokens, position)
    asked = {"mask": named_mask(typed(mask)), "score": score}
    if (
        folder
        and draw.chance(0.15)
        and not any("\r" in name or "\n" in name or name != name.strip() for name in tokens)
    ):
        path = written(folder / f"{seed}.csv", x, tokens)
        return Case(
            seed, page, x, tokens, position, mask, own, lambda: from_file(path, str(position), **asked), heads,
            what=draw.one_of(WHAT_IF),
        )  # fmt: skip
    return Case(
        seed, page, x, tokens, position, mask, own, lambda: explain(x, tokens, given, **asked), heads,
        what=draw.one_of(WHAT_IF),
    )  # fmt: skip


def of_roles(seed: int, draw: Draw) -> Case:
    """Another formula for queries, keys and values that differ; keys and values are sometimes one."""
    x = vectors(draw, "what if")
    n, d = x.shape
    keys = vectors_like(draw, n, d)
    values = keys if draw.chance(0.2) else vectors_like(draw, n, d if draw.chance(0.7) else draw.whole(1, 5))
    tokens, position = names(draw, n), draw.whole(0, n - 1)
    mask = masks(draw, n) if draw.chance(0.4) else CAUSAL

    def explained() -> Explanation:
        return explain(x, tokens, position, keys=keys, values=values, mask=named_mask(typed(mask)))

    return Case(
        seed, "what if", x, tokens, position, mask, (), explained, what=draw.one_of(WHAT_IF), keys=keys, values=values,
        scale=d**-0.5,
    )  # fmt: skip


def vectors_like(draw: Draw, n: int, d: int) -> np.ndarray:
    """Vectors of a given shape, of any kind but the largest."""
    x = draw.one_of([usual, usual, decimals, decimals, orthogonal, axes, tiny, steep, mixed])(draw, n, d)
    for _ in range(draw.one_of([0, 0, 1])):
        x[draw.whole(0, n - 1)] = 0
    return np.ascontiguousarray(x, np.float64)


def model_case(seed: int, draw: Draw) -> Case:
    """A text before the small language model, one head of it worked out."""
    text = draw.one_of(SENTENCES) if draw.chance(0.6) else draw.one_of(ODD_TEXTS)
    if draw.chance(0.2):
        text = " ".join(draw.one_of(SENTENCES) for _ in range(draw.whole(2, 14)))
    text = text * draw.one_of([1, 1, 1, 2])
    given = str(draw.one_of([-1, -1, 0, draw.whole(0, 20), -draw.whole(1, 12)]))
    head, x = (draw.whole(0, 3), draw.whole(0, 3)), np.zeros((1, 1))

    def explained() -> Explanation:
        return of_model(text, given, *head).explained

    return Case(seed, "model", x, ("",), 0, CAUSAL, (), explained, text=text, given=given, head=head)


@functools.lru_cache(2)
def of_model(text: str, given: str, layer: int, head: int) -> ModelPage:
    """The page, worked out once for all formats."""
    return ModelPage(text, given, layer, head)


def named_position(tokens: tuple[str, ...], position: int) -> tuple[str, int]:
    """An item by its name in other letters: the last of those that have it."""
    given = tokens[position].swapcase()
    if given.casefold() != tokens[position].casefold():
        given = tokens[position]
    return given, max(j for j, name in enumerate(tokens) if name.casefold() == given.casefold())


def written(path: Path, x: np.ndarray, tokens: Sequence[str]) -> Path:
    """The vectors in a file, every digit of them."""
    made = io.StringIO()
    csv.writer(made, quoting=csv.QUOTE_NONNUMERIC).writerows(
        [
            ["word", *(f"d{k}" for k in range(x.shape[1]))],
            *([name, *row] for name, row in zip(tokens, x.tolist(), strict=True)),
        ]
    )
    path.write_text(made.getvalue(), "utf-8")
    return path


def text_case(seed: int, draw: Draw, page: str, folder: Path | None) -> Case:
    """A text, by the words that ship or by those of a file."""
    text = draw.one_of(SENTENCES) if draw.chance(0.7) else draw.one_of(ODD_TEXTS)
    if page != "matrix" and draw.chance(0.06):
        text = " ".join(draw.one_of(SENTENCES) for _ in range(draw.whole(3, 22)))
    path = few_words(folder) if folder and draw.chance(0.1) else None
    sentence = (read_embeddings(path) if path else loaded()).embed(text)
    tokens, n = sentence.tokens, len(sentence.tokens)
    mask, score, own = what_is_asked(draw, n, page)
    position = draw.whole(0, n - 1) if draw.chance(0.7) else n - 1
    given = str(draw.one_of([position, position - n]))
    if draw.chance(0.5) and not tokens[position].lstrip("-").isdecimal():
        position = max(j for j, token in enumerate(tokens) if token == tokens[position])
        given = draw.one_of(
            [tokens[position], tokens[position].upper() if tokens[position].isascii() else tokens[position]]
        )
    heads = draw.one_of([h for h in (1, 2, 4, 8) if sentence.x.shape[1] % h == 0])

    def explained() -> Explanation:
        return from_text(text, given, mask=named_mask(typed(mask)), score=score, embeddings=path)

    return Case(seed, page, sentence.x, tokens, position, mask, own, explained, heads, text, path, draw.one_of(WHAT_IF))


@functools.cache
def loaded() -> Any:
    """The words that ship with the package."""
    return load()


def few_words(folder: Path) -> Path:
    """A file of a few words' vectors, as GloVe has them."""
    path = folder / "few words.txt"
    if not path.is_file():
        rng = np.random.default_rng(5)
        words = [
            "the",
            "a",
            "river",
            "bank",
            "was",
            "friend",
            "scroll",
            "doom",
            "jump",
            "don't",
            "of",
            "and",
            "in",
            "#",
        ]
        rows = [f"{word} {' '.join(f'{v:.4f}' for v in rng.normal(size=12) * 3)}" for word in words]
        path.write_text("\n".join([*rows, "zero" + " 0.0" * 12]) + "\n", "utf-8")
    return path


def what_is_asked(draw: Draw, n: int, page: str) -> tuple[tuple, list[Any], tuple[Rule, ...]]:
    """A mask and rules, for clearhead and for the judge; lessons and layers take none."""
    if page not in ("worked", "matrix", "what if") or draw.chance(0.4):
        return CAUSAL, [], ()
    mask = masks(draw, n) if draw.chance(0.7) else CAUSAL
    if page == "what if":
        return mask, [], ()
    pairs = [score_rule(draw) for _ in range(draw.one_of([0, 1, 1, 2]))] if draw.chance(0.6) else []
    return mask, [given for given, _ in pairs], tuple(own for _, own in pairs)


def masks(draw: Draw, n: int) -> tuple:
    """Masks joined by & and |, some turned."""
    packed = draw.chance(0.2)

    def atom() -> tuple:
        cut = draw.whole(0, n)
        made = draw.one_of(
            [
                CAUSAL,
                ("full",),
                ("window", draw.whole(0, 3), 0),
                ("window", draw.whole(0, 3), draw.whole(1, 3)),
                ("dilated", draw.whole(1, 3)),
                ("prefix", draw.whole(0, min(n, 4))),
                ("documents", [cut, n - cut]) if packed else ("window", 0, 0),
            ]
        )
        return ("not", made) if draw.chance(0.2) and made[0] != "documents" else made

    def joined() -> tuple:
        parts = [atom() for _ in range(draw.one_of([1, 1, 1, 2, 3]))]
        one = [part for part in parts if part[0] != "documents"] + [p for p in parts if p[0] == "documents"][:1]
        return functools.reduce(lambda a, b: ("and", a, b), one)

    return functools.reduce(lambda a, b: ("or", a, b), [joined() for _ in range(draw.one_of([1, 1, 1, 2]))])


def score_rule(draw: Draw) -> tuple[Any, Rule]:
    """One score rule, for clearhead and for the judge."""
    kind = draw.one_of(["softcap", "scale", "alibi", "function", "function"])
    if kind == "softcap":
        own = rules.softcap(draw.one_of([0.5, 3.0, 30.0, 50.0]))
    elif kind == "scale":
        own = rules.scale(draw.one_of([0.5, 2.0, -1.0, -40.0, 0.125, 1e-3, 3e9]))
    elif kind == "alibi":
        own = rules.alibi()
    else:
        function, after = draw.one_of(PYTHON_RULES)
        return function, rules.of_function(function.__name__, after)
    return named_score(own.name, heads=1), own


def names(draw: Draw, n: int) -> tuple[str, ...]:
    """Names of items, odd ones and equal ones among them."""
    if draw.chance(0.3):
        return tuple(f"x{j}" for j in range(n))
    words = ["the", "river", "bank", "was", "wet", "a", "of", "it"]
    odd = draw.one_of([0.0, 0.3, 1.0])
    return tuple(draw.one_of(ODD_NAMES) if draw.chance(odd) else draw.one_of(words) for _ in range(n))
