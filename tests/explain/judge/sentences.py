"""Sentences that a page may say, each with what checks it; one that nobody has learned to check is untrue.

A template is a sentence with gaps: <name> of an item in quotes, <item> with its number if
others have that name, <names> a list, <number> and <percent> as they
are printed, <count> a whole number, <some> whatever stands there.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.explain.judge.ranges import NUMBER, PERCENT, UntrueError

ITEM = r"“[^“”]*”(?: \(item \d+\))?"
GAPS = {
    "<name>": r"“([^“”]*)”",
    "<item>": rf"({ITEM})",
    "<names>": rf"({ITEM}(?:(?:, | and ){ITEM})*(?: and \d+ more)?)",
    "<number>": rf"({NUMBER})",
    "<percent>": rf"({PERCENT})",
    "<count>": r"(\d+(?:,\d{3})*)",
    "<some>": r"(.+?)",
}
Check = Callable[..., None]


class Sentence(NamedTuple):
    """A sentence with gaps, and what checks that what stands in them is true."""

    template: str
    pattern: re.Pattern[str]
    check: Check | None  # None for a definition, which claims nothing of the input


def sentence(template: str, check: Check | None = None, *given: Any) -> Sentence:
    """A template, and its check; `given` is passed to it before what stands in the gaps."""
    parts = re.split(f"({'|'.join(GAPS)})", template)
    pattern = "".join(GAPS.get(part) or re.escape(part) for part in parts) + "(?= |$)"
    if check is None:
        return Sentence(template, re.compile(pattern), None)
    counts = [at for at, gap in enumerate(gap for gap in parts if gap in GAPS) if gap == "<count>"]

    def plain(found: tuple[str, ...]) -> list[str]:
        """What stands in the gaps, counts without their commas."""
        return [text.replace(",", "") if at in counts and text else text for at, text in enumerate(found)]

    return Sentence(template, re.compile(pattern), lambda judge, *found: check(judge, *given, *plain(found)))


def definitions(*texts: str) -> list[Sentence]:
    """Sentences that say the same on every page."""
    return [sentence(text) for text in texts]


def read(text: str, known: Iterable[Sentence], judge: Any) -> None:
    """Check one paragraph, sentence by sentence."""
    at = 0
    while at < len(text):
        for one in known:
            if found := one.pattern.match(text, at):
                if one.check:
                    try:
                        one.check(judge, *found.groups())
                    except UntrueError as error:
                        raise UntrueError(f"{found.group()!r}: {error}") from None
                judge.met.add(one.template)
                at = found.end() + 1
                break
        else:
            raise UntrueError(f"a sentence that nobody has learned to check: {text[at:]!r}")
