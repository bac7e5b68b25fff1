"""Text of numbers, items and lists, the same in every format."""

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal

ROUNDINGS = {digits: Context(prec=digits, rounding=ROUND_HALF_EVEN) for digits in (2, 4, 12)}
JOINERS = "\u200c\u200d"  # parts of words and emoji, invisible alone
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def without_noise(value: float) -> Decimal:
    """A number's first 12 digits; later ones depend on the order in which floats were added.

    >>> without_noise(0.1 + 0.2) == without_noise(0.3)
    True
    """
    return ROUNDINGS[12].create_decimal_from_float(float(value))


def decimals(value: Decimal, count: int) -> str:
    """A number with `count` decimals, rounded half to even."""
    return f"{value.quantize(Decimal(1).scaleb(-count), context=ROUNDINGS[12]):f}"


def exponent_form(value: Decimal, digits: int) -> str:
    """A number with `digits` digits and an exponent, rounded half to even."""
    first, _, exponent = f"{ROUNDINGS[digits].plus(value):.{digits - 1}e}".partition("e")
    return f"{first}e{int(exponent):+03d}"


def number(value: float) -> str:
    """Four decimals, or an exponent where those would hide the number; only 0 itself is written 0.

    >>> number(0.25), number(-3e-7), number(0.0), number(2.5e8), number(0.12345), number(-math.inf)
    ('0.2500', '-3.0e-07', '0', '2.500e+08', '0.1234', '−∞')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    exact = without_noise(value)
    if not exact:
        return "0"
    if abs(exact) < Decimal("1e-4"):
        return exponent_form(exact, 2)
    return decimals(exact, 4) if abs(exact) < 10**6 else exponent_form(exact, 4)


def factor(value: float) -> str:
    """A number next to × or +, in parentheses if negative.

    >>> factor(0.25), factor(-0.25)
    ('0.2500', '(-0.2500)')
    """
    return f"({number(value)})" if value < 0 else number(value)


def percent(share: float) -> str:
    """A share in per cent; only 0 is written as 0, and only 1 as 100.

    >>> percent(0.0689), percent(0.00012), percent(1e-6), percent(0.99999)
    ('6.9 %', '0.012 %', '< 0.001 %', '> 99.9 %')
    """
    exact = 100 * without_noise(share)
    if not exact:
        return "0 %"
    if exact < Decimal("0.001"):
        return "< 0.001 %"
    if exact < Decimal("0.1"):
        return f"{ROUNDINGS[2].plus(exact):f} %"
    rounded = decimals(exact, 1)
    return "> 99.9 %" if rounded == "100.0" and exact < 100 else f"{rounded} %"


def short(count: int) -> str:
    """A count in three digits; exact below 100 000.

    >>> short(8256), short(549_756_338_176)
    ('8,256', '550 G')
    """
    value, units = float(count), iter(("", " k", " M", " G", " T", " P", " E"))
    unit = next(units)
    if count < 100_000:
        return f"{count:,}"
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    return f"{value:.3g}{unit}"


def byte_size(count: int) -> str:
    """A number of bytes in binary units.

    >>> byte_size(400), byte_size(65536), byte_size(4 * 2**40)
    ('400 B', '64 KiB', '4 TiB')
    """
    value, unit = in_binary_unit(count)
    return f"{value:.4g} {unit}"


def in_binary_unit(count: int) -> tuple[float, str]:
    """A number of bytes in the largest unit that keeps it at least 1.

    >>> in_binary_unit(3 << 29)
    (1.5, 'GiB')
    """
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = next(units)
    while value >= 1024:
        value, unit = value / 1024, next(units)
    return value, unit


def count(n: int, noun: str) -> str:
    """A count with its noun, in singular or plural.

    >>> count(1, "item"), count(3000, "key"), count(2, "query")
    ('1 item', '3,000 keys', '2 queries')
    """
    plural = f"{noun[:-1]}ies" if noun[-2:] == "ry" else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def sub(name: str, index: int) -> str:
    """A letter with a subscript.

    >>> sub("x", 12)
    'x₁₂'
    """
    return name + str(index).translate(SUBSCRIPTS)


def label(token: str) -> str:
    r"""A token that is safe to print: it cannot move a cursor, break a line or a table, or be invisible.

    Control characters appear as Python escapes, tokens of blanks alone as ␣.

    >>> label("\n"), label("a\tb"), label(" the"), label("  "), label("")
    ('\\n', 'a\\tb', ' the', '␣␣', '(empty)')
    """
    if not token.strip(" "):
        return "␣" * len(token) or "(empty)"
    visible = token.strip(JOINERS) != ""
    return "".join(
        c if c.isprintable() or (visible and c in JOINERS) else c.encode("unicode_escape").decode() for c in token
    )


def quoted(token: str) -> str:
    """A token in quotation marks.

    >>> quoted("river")
    '“river”'
    """
    return f"“{label(token)}”"


def listed(words: Sequence[str], most: int = 4) -> str:
    """A list of words in a sentence; of more than `most`, the first ones and the number of others.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefg"))
    ('a', 'a, b and c', 'a, b, c, d and 3 more')
    """
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most:,} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
