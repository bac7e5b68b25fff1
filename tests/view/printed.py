"""How the page must print numbers, in Python: the rules of numbers.js once more, on decimals."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

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


def percent(share: float) -> str:
    """A share in per cent: one decimal, more where it is small; only exactly 0 prints as 0, and only 1 as 100."""
    x = exact(share) * 100
    if not x or x < Decimal("0.001"):
        return "< 0.001 %" if x else "0 %"
    if x < Decimal("0.1"):
        return f"{fixed(x, 4 if x < Decimal('0.01') else 3)} %"
    text = fixed(x, 1)
    return "> 99.9 %" if text == "100.0" and x < 100 else f"{text} %"
