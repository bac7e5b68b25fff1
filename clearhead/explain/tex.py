"""Text in plain LaTeX, without packages: the spelling and the width of each character.

Output is ASCII; accents and common signs print, any other character is shown as its code point in a box, and a long
word may break. Widths are those of Computer Modern at 8 points, and upper bounds for signs.
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
SIGN_WIDTH = 9.0  # points; an upper bound for every sign in SPECIAL except the ellipsis
BOX_WIDTH = 30.0  # points; an upper bound for a code point in its box
LONG_WORD = 24  # characters; a longer word may break
BREAK_STRIDE = 4  # characters between the places where it may

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
ACCENTS_BELOW = "dcb"  # accents that leave the dot of an i alone
DIGITS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
QUOTES = "'`‘’“”"
BOXED = r"\def\codepoint#1{{\fboxsep1pt\fbox{\tiny U+#1}}}"  # needed where any text holds \codepoint
MINUS_PATTERN = re.compile(r"(?<![\w-])-(?=\.?\d)|(?<=\de)-(?=\d)", re.ASCII)  # a hyphen that is a sign


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX prints it unchanged.

    >>> escape_latex("50 % of x₁₂ & a_b"), escape_latex("é 河 -1")
    ('50 \\\\% of x$_{12}$ \\\\& a\\\\_b', "\\\\'{e} \\\\codepoint{6CB3} $-$1")
    """
    text = MINUS_PATTERN.sub("−", unicodedata.normalize("NFC", text))
    return "".join(word if word == " " else breakable(word) for word in re.split("( )", text))


def breakable(word: str) -> str:
    """A word as LaTeX; a long one may break every few characters and around boxes."""
    spelled = [spell_character(character) for character in word]
    for at in range(len(word) - 1, 0, -1):
        if must_part(word[at - 1], word[at]):
            spelled[at] = "{}" + spelled[at]
        if may_break(word, at):
            spelled[at] = r"\allowbreak{}" + spelled[at]
    return re.sub(r"(?:\$_\d\$)+", lambda found: f"$_{{{re.sub('[$_]', '', found[0])}}}$", "".join(spelled))


def may_break(word: str, at: int) -> bool:
    """Whether a line may end before character `at` of a word."""
    return boxed(word[at - 1]) or boxed(word[at]) or (len(word) > LONG_WORD and at % BREAK_STRIDE == 0)


def must_part(left: str, right: str) -> bool:
    """Whether two characters would become one glyph: -- a dash, '' a quotation mark, ?` an inverted question mark."""
    return left == right == "-" or (left in QUOTES and right in QUOTES) or (left in "?!" and right in "‘“")


def spell_character(character: str) -> str:
    """One character as LaTeX."""
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
    dotless = letter in "ij" and accent not in ACCENTS_BELOW
    return rf"\{accent}{{{chr(92) * dotless}{letter}}}"


def accented(character: str) -> tuple[str, str]:
    """A character's letter and its LaTeX accent, which is empty where LaTeX has none."""
    parts = unicodedata.normalize("NFD", character)
    letter, mark = parts[0], parts[1:]
    return letter, ACCENTS.get(mark, "") if letter.isascii() and letter.isalpha() else ""


def boxed(character: str) -> bool:
    """Whether a character is shown as its code point."""
    return spell_character(character).startswith(r"\codepoint")


def text_width(text: str) -> float:
    """The width of a text in 8-point type, in points; at least the true one.

    >>> text_width("0.1234") < 24 < text_width("−0.1234") < 34
    True
    """
    return sum(map(character_width, unicodedata.normalize("NFC", MINUS_PATTERN.sub("−", text))))


def widest_part(text: str) -> float:
    """The width of the widest part of a text that cannot break.

    >>> widest_part("the river") == text_width("river"), widest_part("x" * 300) == text_width("xxxx")
    (True, True)
    """
    widest = 0.0
    for word in unicodedata.normalize("NFC", text).split(" "):
        edges = [0, *(at for at in range(1, len(word)) if may_break(word, at)), len(word)]
        widest = max(widest, *(text_width(word[start:stop]) for start, stop in pairwise(edges)))
    return widest


def character_width(character: str) -> float:
    """The width of one character, in points."""
    if character in WIDTHS:
        return WIDTHS[character]
    if character == "…":
        return 2 * SIGN_WIDTH
    letter, accent = accented(character)
    if accent:
        return WIDTHS.get(letter, SIGN_WIDTH)
    return BOX_WIDTH if boxed(character) else SIGN_WIDTH


def math_width(latex: str) -> float:
    """An upper bound on a formula's width in 8-point type, by its number of signs."""
    signs = re.sub(r"\\(?:mathrm|mbox|Big|[,; ])|[{}^_]", "", latex)
    return 6.5 * len(re.sub(r"\\[a-z]+ *", "XX", signs.replace(r"\ ", "")))
