"""What a printed number says: all the numbers that would be printed so; and the arithmetic of such ranges.

A printed equation is true if its two sides may be equal; a printed value is true if the value may be among those that
it stands for. So nothing is asked of the last printed digit but what rounding allows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

NUMBER = r"(?:-?\d+\.\d{4}|-?\d\.\de-\d{2,3}|-?\d\.\d{3}e\+\d{2,3}|0|−?∞)"
PERCENT = r"(?:\d{1,3}\.\d %|0\.\d{2,4} %|< 0\.001 %|> 99\.9 %|0 %)"
DENORMAL = 1e-323  # two of the smallest steps that a float64 can take
NOISE = 1e-12  # relative: what a few operations may lose
TWELVE = 1e-11  # relative: numbers are brought to twelve digits before they are rounded as they are printed


class UntrueError(AssertionError):
    """A page says what is not so, or something that nobody has learned to check."""


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `lo` to `hi`."""

    lo: float
    hi: float

    def __add__(self, other: Range) -> Range:
        return Range(self.lo + other.lo, self.hi + other.hi)

    def __mul__(self, other: Range) -> Range:
        ends = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Range(min(ends), max(ends))

    def __truediv__(self, other: Range) -> Range:
        if other.lo <= 0:  # of denormals: nothing can be told
            return Range(-math.inf, math.inf)
        ends = [a / b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Range(min(ends), max(ends))

    def exp(self) -> Range:
        """The exponentials of all."""
        return Range(exp(self.lo), exp(self.hi))

    def meets(self, other: Range) -> bool:
        """Whether one number is in both."""
        slack = DENORMAL + NOISE * max(map(abs_finite, (self.lo, self.hi, other.lo, other.hi)))
        return self.lo <= other.hi + slack and other.lo <= self.hi + slack


def exact(value: float) -> Range:
    """One number only."""
    return Range(value, value)


def exp(value: float) -> float:
    """exp, infinite where a float64 cannot hold it."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def abs_finite(value: float) -> float:
    """The size of a number, of infinite ones 0."""
    return abs(value) if math.isfinite(value) else 0.0


def figure(text: str) -> Range:
    """All numbers that are printed as `text`; raises UntrueError for what is no number, or one in the wrong form."""
    if not re.fullmatch(NUMBER, text):
        raise UntrueError(f"{text!r} is not how numbers are printed")
    if text in ("∞", "−∞"):
        return exact(math.inf if text == "∞" else -math.inf)
    value = float(text)
    if "e" not in text:
        if text != "0" and not 0.0001 <= abs(value) <= 1e6:
            raise UntrueError(f"{text} needs an exponent")
        half = 0.0 if text == "0" else 0.00005
    else:
        digits, _, power = text.partition("e")
        if not (abs(value) <= 1e-4 or abs(value) >= 1e6):
            raise UntrueError(f"{text} needs no exponent")
        half = 0.5 * 10.0 ** (int(power) - len(digits.partition(".")[2]))
    half += TWELVE * abs(value)
    return Range(value - half, value + half)


def share(text: str) -> Range:
    """All shares of 1 that are printed as a percentage."""
    if not re.fullmatch(PERCENT, text):
        raise UntrueError(f"{text!r} is not how percentages are printed")
    if text.startswith("<"):
        return Range(5e-324, 1e-5)
    if text.startswith(">"):
        return Range(0.999, 1.0)
    written = text.removesuffix(" %")
    if not float(written):
        if written != "0":
            raise UntrueError(f"{text} looks like nothing")
        return exact(0.0)
    half = 0.5 * 10.0 ** -len(written.partition(".")[2]) * (1 + 1e-9)
    return Range((float(written) - half) / 100, min(1.0, (float(written) + half) / 100))


def says(text: str, value: Range, what: str) -> None:
    """Hold a printed number to what it must be; only 0 may be printed 0."""
    if not figure(text).meets(value):
        raise UntrueError(f"{what} is {shown(value)}, and the page says {text}")


def rounded(text: str, value: float, what: str) -> None:
    """Hold a printed number to the same number in full."""
    says(text, exact(value), f"{what}, in JSON,")


def equal(left: Range, right: str, what: str) -> None:
    """Hold an equation to its right side."""
    if not left.meets(figure(right)):
        raise UntrueError(f"{what}: the left side is {shown(left)}, not {right}")


def is_share(text: str, value: Range, what: str) -> None:
    """Hold a percentage to its share."""
    if not share(text).meets(value):
        raise UntrueError(f"{what} is a share of {shown(value)}, and the page says {text}")


def shown(value: Range) -> str:
    """A range for an error."""
    return f"{value.lo!r}" if value.lo == value.hi else f"{value.lo!r} to {value.hi!r}"
