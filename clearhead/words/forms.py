"""The other spellings of a word: without accents, otherwise inflected.

Decides spelling only and knows no vocabulary; what English inflects by no rule stands in irregular.txt. Endings that
make another word of it (-er, -ly, -less) are left on: those are `pieces`, and a guess at the meaning.
"""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from importlib import resources

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
_SHORTENED = ("'ve", "'re", "'ll", "'d", "'m", "n't", "'s")  # what is joined to a word, and is a word of its own
_APOSTROPHES = (("nt", "n't"), ("ve", "'ve"), ("re", "'re"), ("ll", "'ll"), ("m", "'m"), ("d", "'d"), ("s", "'s"))
_HISSES = re.compile(r".*(s|x|z|ch|sh|o)")  # takes -es
_DOUBLES = re.compile(r"(.*[^aeiou])?[aeiou][^aeiouwxy]")  # may double its last letter: stop, stopped
_MUST_DOUBLE = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # of one syllable: "staring" is not from "star"


def unaccented(word: str) -> str:
    """The word without its accents.

    >>> unaccented("café")
    'cafe'
    """
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def spellings(word: str) -> Iterator[str]:
    """The same word spelled otherwise: without accents, with the apostrophe that is left out in a hurry.

    >>> list(spellings("café")), "don't" in spellings("dont"), "we're" in spellings("were")
    (['cafe'], True, True)
    """
    plain = unaccented(word)
    if plain != word:
        yield plain
    for ending, spelled in _APOSTROPHES:
        if plain.endswith(ending) and plain != ending:
            yield plain.removesuffix(ending) + spelled


def inflections(word: str) -> Iterator[str]:
    """Other inflections of the same word, if English has them: plain forms first, then endings on those.

    >>> list(inflections("stopped"))[:4]
    ['stoppe', 'stopp', 'stop', 'stoppeds']
    """
    yield from (word.removesuffix(ending) for ending in _SHORTENED if word.endswith(ending) and word != ending)
    plain = [form for form in _plain_forms(word) if len(form) >= 3]
    yield from plain
    for form in (word, *plain):
        yield from _irregular()[1].get(form, ())
        yield from _other_endings(form)


def family(word: str) -> frozenset[str]:
    """The word and every plain form that it may be an inflection of: words of one family share one of them.

    >>> sorted(family("banking") & family("banks")), sorted(family("ate") & family("eating"))
    (['bank'], ['eat'])
    """
    return frozenset([word, *(form for form in _plain_forms(word) if len(form) >= 3)])


def by_rule(word: str) -> list[str]:
    """The plain forms that a rule gives, whatever stands in irregular.txt.

    >>> by_rule("stopped"), by_rule("ate")
    (['stoppe', 'stopp', 'stop'], [])
    """
    return [form for form in _cut(word) if len(form) >= 3]


@functools.cache
def _irregular() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """From an irregular form to the words it is one of, and back: “ate” to “eat”."""
    plain, inflected = defaultdict(list), defaultdict(list)
    for line in resources.files(__package__).joinpath("irregular.txt").read_text("utf-8").splitlines():
        form, base = line.split()
        plain[form].append(base)
        inflected[base].append(form)
    return dict(plain), dict(inflected)


def _plain_forms(word: str) -> Iterator[str]:
    yield from _irregular()[0].get(word, ())
    yield from _cut(word)


def _cut(word: str) -> Iterator[str]:
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
