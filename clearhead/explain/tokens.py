r"""How a token is shown where it stands among other text: on a terminal, on a page, in a figure.

Decides that nothing in it can move a cursor, break a line, turn the direction of writing, or be overlooked.
"""

JOINERS = "\u200c\u200d"  # parts of words and emoji, and nothing by themselves


def visible(token: str) -> str:
    r"""A token with its control characters as Python writes them, and blanks that stand alone as ␣.

    >>> visible("\n"), visible("a\tb"), visible(" the"), visible("  "), visible("")
    ('\\n', 'a\\tb', ' the', '␣␣', '(empty)')
    """
    if not token.strip(" "):
        return "␣" * len(token) or "(empty)"
    whole = token.strip(JOINERS) != ""
    return "".join(
        c if c.isprintable() or (whole and c in JOINERS) else c.encode("unicode_escape").decode() for c in token
    )
