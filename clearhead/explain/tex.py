"""Text in plain LaTeX, without packages: how each character is spelled, and how wide it will be.

Decides that output is ASCII, that accents and common signs print, that any other character is shown as its code point
in a box, and where a long word may break. Widths are those of Computer Modern at 8 points, for signs upper bounds.
"""

import re
import unicodedata
from itertools import pairwise

POINTS = {
    2.36: "!',.:;[]_`il", 2.6: "fj", 2.83: "-", 3.06: "I", 3.31: "()rt", 3.35: "s", 3.78: "cez ", 4.01: "?",
    4.25: '"$*/0123456789\\^ago{}~', 4.36: "J", 4.49: "kqvxy", 4.72: "Sbdhnpu", 5.19: "Z", 5.31: "L", 5.54: "F",
    5.78: "EP", 6.02: "B", 6.14: "CTw", 6.25: "R", 6.37: "AHNUVXY", 6.49: "D", 6.6: "K", 6.61: "&+=@OQ<>", 6.67: "G",
    7.08: "#%m", 7.78: "M", 8.73: "W", 2.37: "|",
}  # fmt: skip
WIDTHS = {character: points for points, characters in POINTS.items() for character in characters}
SIGN = 9.0  # points, no less than any sign in SPECIAL but the ellipsis
BOX = 30.0  # and than a code point in its box
LONG = 24  # characters; a longer word may break
STRIDE = 4  # characters between two such places

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': r"{\char34}", "`": r"\`{}", "\u00a0": "~",
    "<": "$<$", ">": "$>$", "|": "$|$", "“": "``", "”": "''", "‘": "`", "’": "'", "–": "--", "—": "---",
    "…": r"\ldots{}", "¡": "!`", "¿": "?`", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}",
    "†": r"\dag{}", "‡": r"\ddag{}", "•": r"$\bullet$", "°": r"$^\circ$", "±": r"$\pm$", "µ": r"$\mu$",
    "·": r"$\cdot$", "×": r"$\times$", "÷": r"$\div$", "−": "$-$", "√": r"$\surd$", "¹": "$^1$", "²": "$^2$",
    "³": "$^3$", "ᵀ": "$^T$", "≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$",
    "→": r"$\to$", "←": r"$\gets$", "∈": r"$\in$", "∑": r"$\Sigma$", "Σ": r"$\Sigma$",
    "ⱼ": "$_j$", "ᵢ": "$_i$", "ₖ": "$_k$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "ȷ": r"\j{}",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
BELOW = "dcb"  # accents that leave the dot of an i alone
DIGITS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
QUOTES = "'`‘’“”"
BOXED = r"\def\codepoint#1{{\fboxsep1pt\fbox{\tiny U+#1}}}"  # needed where any text holds \codepoint
MINUS = re.compile(r"(?<![\w-])-(?=\.?\d)|(?<=\de)-(?=\d)", re.ASCII)  # a hyphen that is a sign


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands.

    >>> escape("50 % of x₁₂ & a_b"), escape("é 河 -1")
    ('50 \\\\% of x$_{12}$ \\\\& a\\\\_b', "\\\\'{e} \\\\codepoint{6CB3} $-$1")
    """
    text = MINUS.sub("−", unicodedata.normalize("NFC", text))
    return "".join(word if word == " " else broken(word) for word in re.split("( )", text))


def broken(word: str) -> str:
    """A word's LaTeX; a long one may break every few characters and around boxes."""
    spelled = [spell(character) for character in word]
    for at in range(len(word) - 1, 0, -1):
        if must_part(word[at - 1], word[at]):
            spelled[at] = "{}" + spelled[at]
        if may_break(word, at):
            spelled[at] = r"\allowbreak{}" + spelled[at]
    return re.sub(r"(?:\$_\d\$)+", lambda found: f"$_{{{re.sub('[$_]', '', found[0])}}}$", "".join(spelled))


def may_break(word: str, at: int) -> bool:
    """Whether a line may end before a character of a word."""
    return boxed(word[at - 1]) or boxed(word[at]) or (len(word) > LONG and at % STRIDE == 0)


def must_part(left: str, right: str) -> bool:
    """Whether two characters would become one glyph: -- a dash, '' a quotation mark, ?` a turned question mark."""
    return left == right == "-" or (left in QUOTES and right in QUOTES) or (left in "?!" and right in "‘“")


def spell(character: str) -> str:
    """One character's LaTeX."""
    if character in SPECIAL:
        return SPECIAL[character]
    if character in GREEK:
        return rf"$\{GREEK[character]}$"
    if character in DIGITS:
        return f"$_{DIGITS[character]}$"
    if " " <= character <= "~":
        return character
    letter, accent = accented(character)
    if not accent:
        return rf"\codepoint{{{ord(character):04X}}}"
    dotless = letter in "ij" and accent not in BELOW
    return rf"\{accent}{{{chr(92) * dotless}{letter}}}"


def accented(character: str) -> tuple[str, str]:
    """A letter and the accent that LaTeX puts on it, which is empty where it cannot."""
    parts = unicodedata.normalize("NFD", character)
    letter, mark = parts[0], parts[1:]
    return letter, ACCENTS.get(mark, "") if letter.isascii() and letter.isalpha() else ""


def boxed(character: str) -> bool:
    """Whether a character is shown as its code point."""
    return spell(character).startswith(r"\codepoint")


def width(text: str) -> float:
    """How many points wide a text is in 8-point type, or a little less.

    >>> width("0.1234") < 24 < width("−0.1234") < 34
    True
    """
    return sum(map(character_width, unicodedata.normalize("NFC", MINUS.sub("−", text))))


def unbroken(text: str) -> float:
    """How wide the widest part of a text is that stays in one line.

    >>> unbroken("the river") == width("river"), unbroken("x" * 300) == width("xxxx")
    (True, True)
    """
    widest = 0.0
    for word in unicodedata.normalize("NFC", text).split(" "):
        edges = [0, *(at for at in range(1, len(word)) if may_break(word, at)), len(word)]
        widest = max(widest, *(width(word[start:stop]) for start, stop in pairwise(edges)))
    return widest


def character_width(character: str) -> float:
    """How wide one character is."""
    if character in WIDTHS:
        return WIDTHS[character]
    if character == "…":
        return 2 * SIGN
    letter, accent = accented(character)
    if accent:
        return WIDTHS.get(letter, SIGN)
    return BOX if boxed(character) else SIGN


def math_width(latex: str) -> float:
    """How wide a formula is at most, in 8-point type, going by its signs."""
    signs = re.sub(r"\\(?:mathrm|mbox|Big|[,; ])|[{}^_]", "", latex)
    return 6.5 * len(re.sub(r"\\[a-z]+ *", "XX", signs.replace(r"\ ", "")))
