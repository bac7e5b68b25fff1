"""Under which other spellings an unknown word may honestly be sought: without accents, otherwise inflected.

Decides spelling only and knows no vocabulary. Endings that make another word of it (-er, -ly, -less) are left
on, and joined words are left joined, for both would guess at a meaning: a hardship is no hard ship.
"""

import re
import unicodedata
from collections.abc import Iterator

_ENDINGS = (  # (what the word ends in, what stands there in its plain form)
    ("'s", ""),
    ("s'", "s"),
    ("ies", "y"),
    ("es", ""),
    ("s", ""),
    ("ves", "f"),
    ("ves", "fe"),
    ("ied", "y"),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("iest", "y"),
)
_HISSES = re.compile(r".*(s|x|z|ch|sh|o)")  # takes -es
_DOUBLES = re.compile(r"(.*[^aeiou])?[aeiou][^aeiouwxy]")  # may double its last letter: stop, stopped
_MUST_DOUBLE = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # of one syllable: "staring" is not from "star"


def unaccented(word: str) -> str:
    """The word without its accents.

    >>> unaccented("café")
    'cafe'
    """
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def inflections(word: str) -> Iterator[str]:
    """Other inflections of the same word, if English has them: plain forms first, then endings on those.

    >>> list(inflections("stopped"))[:4]
    ['stoppe', 'stopp', 'stop', 'stoppeds']
    """
    plain = [form for form in _plain_forms(word) if len(form) >= 3]
    yield from plain
    for form in (word, *plain):
        yield from _other_endings(form)


def _plain_forms(word: str) -> Iterator[str]:
    for ending, rest in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem in ("", word) or (ending == "es" and not _HISSES.fullmatch(stem)):
            continue
        if ending in ("ed", "ing") and not rest:
            if not _MUST_DOUBLE.fullmatch(stem):
                yield stem
            if stem[-1:] == stem[-2:-1] and _DOUBLES.fullmatch(stem[:-1]):
                yield stem[:-1]
        else:
            yield stem + rest


def _other_endings(form: str) -> Iterator[str]:
    if len(form) >= 4:  # shorter ones meet words of other origin: "los" has nothing of "loses"
        yield form + ("es" if _HISSES.fullmatch(form) else "s")
        if form.endswith("y"):
            yield form[:-1] + "ies"
    if len(form) >= 5:  # likewise "wick" of "wicked"
        yield from (form.removesuffix("e") + "ed", form.removesuffix("e") + "ing")
        if form.endswith("y"):
            yield form[:-1] + "ied"
