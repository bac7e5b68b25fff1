"""Text that installed fonts can draw, and the room that it takes."""

import functools
from typing import Any

try:  # the first of these modules to import it
    from matplotlib import font_manager
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("clearhead.plot needs matplotlib: pip install 'clearhead[plot]'") from error

PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}  # a $ or a backslash in a token starts no formula


@functools.lru_cache(4096)
def extent(text: str, size: float, families: tuple[str, ...] = ()) -> tuple[float, float]:
    """Width and height of a text in points, as matplotlib draws it."""
    drawn = Figure(dpi=72).text(0, 0, text, fontsize=size, family=list(families) or None, **PLAIN)
    box = drawn.get_window_extent()
    return float(box.width), float(box.height)


def legible(text: str, families: tuple[str, ...]) -> str:
    """A text with those characters that none of some fonts has spelled as Python spells them."""
    return "".join(c if drawn_by(c, families) else escaped(c) for c in text)


def escaped(character: str) -> str:
    """A character as Python spells it; ASCII stays."""
    return character if character.isascii() else character.encode("unicode_escape").decode()


def families_for(text: str) -> tuple[str, ...]:
    """The usual font, and those installed ones that have the characters it lacks."""
    usual = font_manager.FontProperties().get_name()
    found = [usual]
    for character in sorted({c for c in text if not c.isascii()}):
        if not drawn_by(character, tuple(found)) and (family := family_with(character)):
            found.append(family)
    return tuple(found)


def drawn_by(character: str, families: tuple[str, ...]) -> bool:
    """Whether one of some fonts has a character; those that join others count as drawn."""
    return character.isascii() or any(has(path_of(family), character) for family in families)


@functools.lru_cache(4096)
def family_with(character: str) -> str | None:
    """An installed upright font of usual weight that has a character."""
    for entry in font_manager.fontManager.ttflist:
        upright = entry.style == "normal" and entry.weight in (400, "normal", "regular")
        if upright and has(entry.fname, character) and path_of(entry.name) == entry.fname:
            return entry.name
    return None


@functools.lru_cache(256)
def path_of(family: str) -> str:
    """The file that matplotlib takes for a family."""
    return str(font_manager.findfont(font_manager.FontProperties(family=[family])))


@functools.lru_cache(1 << 16)
def has(path: str, character: str) -> bool:
    """Whether a font has a character."""
    try:
        return bool(font_manager.get_font(path).get_char_index(ord(character)))
    except (OSError, RuntimeError):  # a file that is gone, or not a font that can be drawn
        return False
