"""How the page must print numbers, in Python: the rules of numbers.js once more, on decimals."""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np

TWELVE = Context(prec=12, rounding=ROUND_HALF_EVEN)


def exact(value: float) -> Decimal:
    """The first twelve digits."""
    return TWELVE.create_decimal_from_float(float(value))


def fixed(value: Decimal, places: int) -> str:
    """So many decimals, half to even; a minus sign, but never before a zero."""
    text = f"{value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN, context=Context(prec=60)):f}"
    return ("−" if text.startswith("-") and text.strip("-0.") else "") + text.removeprefix("-")


def power(value: Decimal, places: int) -> str:
    """A power of ten behind so many decimals."""
    digits = Context(prec=places + 1, rounding=ROUND_HALF_EVEN).plus(value)
    mantissa, _, exponent = f"{digits:.{places}e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def number(value: float, narrow: bool = False) -> str:
    """A number in a cell."""
    x = exact(value)
    size = abs(x)
    if not x:
        return "0" if narrow else "0.000"
    if size <= Decimal("0.005" if narrow else "0.00005") or size >= Decimal("1e4" if narrow else "1e6"):
        return power(x, 0 if narrow and size < 1 else 1)
    if narrow:
        return fixed(x, 2 if size < 10 else 1 if size < 100 else 0)
    return fixed(
        x, 4 if size <= Decimal("0.0005") else 3 if size < 100 else 2 if size < 1000 else 1 if size < 10**4 else 0
    )


def share(weight: float, narrow: bool = False) -> str:
    """A weight in a cell."""
    x, unit = 100 * exact(weight), "" if narrow else "\u202f%"
    if not x:
        return f"0{unit}"
    if x <= Decimal("0.05"):
        return f"<0.1{unit}"
    text = fixed(x, 1)
    return f">99.9{unit}" if text == "100.0" and x < 100 else f"{text}{unit}"


def percent(weight: float) -> str:
    """A share in a sentence or a list: two digits where it is small, and never 0 or 100 unless it is."""
    x = 100 * exact(weight)
    if not x:
        return "0 %"
    if x < Decimal("0.001"):
        return "< 0.001 %"
    if x < Decimal("0.1"):
        return f"{fixed(x, 4 if x < Decimal('0.01') else 3)} %"
    text = fixed(x, 1)
    return "> 99.9 %" if text == "100.0" and x < 100 else f"{text} %"


def short(weight: float) -> str:
    """A share in a cell of the map or of its table."""
    if 0.00001 <= weight < 0.00095:
        return f"{fixed(100 * exact(weight), 3 if weight < 0.000095 else 2)} %"
    text = percent(weight)
    return text.removesuffix(" %") if text[0] in "<>" else text


def nearly(text: str, rule: Callable[[float], str], value: float, error: float = 3e-6) -> bool:
    """Whether `rule` prints a number so, or another that float32 may have made of it."""
    return text in {rule(value * (1 + part * error)) for part in (0, -1, 1)}


def whole(count: int) -> str:
    """A count in groups of three digits."""
    return f"{count:,}"


def round_down(value: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten that is not larger."""
    power_of_ten = np.floor(np.log10(value) + 1e-9)
    digit = max(n for n in (1, 2, 5) if n <= value / 10**power_of_ten + 1e-6)
    return float(f"{digit}e{int(power_of_ten)}")


def step(weight: Any, floor: float, top: float = 1.0) -> Any:
    """Which of the 21 colours a weight has: logarithmic above a floor, linear if the floor is 0."""
    with np.errstate(divide="ignore"):
        part = np.log(weight / floor) / np.log(top / floor) if floor else np.divide(weight, top)
    return (
        np.clip(np.floor(20 * part + 0.5), 0, 20).astype(int)
        if np.ndim(weight)
        else int(max(0, min(20, np.floor(20 * part + 0.5))))
    )
