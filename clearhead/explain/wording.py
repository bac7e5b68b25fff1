"""How numbers, items and lists are written, in every format alike."""

from collections.abc import Sequence

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def number(value: float) -> str:
    """Four decimals, or an exponent where they would hide the number; only 0 itself is written 0.

    >>> number(0.25), number(-3e-7), number(0.0), number(2.5e8)
    ('0.2500', '-3.0e-07', '0', '2.500e+08')
    """
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.3e}"


def factor(value: float) -> str:
    """A number beside a × or a +.

    >>> factor(0.25), factor(-0.25)
    ('0.2500', '(-0.2500)')
    """
    return f"({number(value)})" if value < 0 else number(value)


def percent(share: float) -> str:
    """A share in per cent.

    >>> percent(0.0689), percent(1e-6)
    ('6.9 %', '1.0e-04 %')
    """
    return f"{100 * share:.1f} %" if share >= 5e-4 or share == 0 else f"{100 * share:.1e} %"


def short(count: int) -> str:
    """A count in three digits, exact below 100 000.

    >>> short(8256), short(549_756_338_176)
    ('8 256', '550 G')
    """
    value, units = float(count), iter(("", " k", " M", " G", " T", " P", " E"))
    unit = next(units)
    if count < 100_000:
        return f"{count:,}".replace(",", " ")
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    return f"{value:.3g}{unit}"


def size(count: int) -> str:
    """A number of bytes in binary units.

    >>> size(400), size(65536), size(4 * 2**40)
    ('400 B', '64 KiB', '4 TiB')
    """
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = next(units)
    while value >= 1024:
        value, unit = value / 1024, next(units)
    return f"{value:.4g} {unit}"


def count(n: int, noun: str) -> str:
    """So many of something.

    >>> count(1, "item"), count(3, "item"), count(2, "query")
    ('1 item', '3 items', '2 queries')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{n} {noun if n == 1 else plural}"


def sub(name: str, index: int) -> str:
    """A letter with an index.

    >>> sub("x", 12)
    'x₁₂'
    """
    return name + str(index).translate(SUBSCRIPTS)


def label(token: str) -> str:
    """A token fit to print: nothing in it can move a cursor or break a table.

    >>> label("a\\nb"), label("")
    ('a�b', '(empty)')
    """
    return "".join(c if c.isprintable() else "�" for c in token) or "(empty)"


def quoted(token: str) -> str:
    """A token in a sentence.

    >>> quoted("river")
    '“river”'
    """
    return f"“{label(token)}”"


def listed(words: Sequence[str], most: int = 4) -> str:
    """Words in a sentence; where there are many, the first of them and how many more.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefg"))
    ('a', 'a, b and c', 'a, b, c, d and 3 more')
    """
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
