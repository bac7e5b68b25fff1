"""What clearhead explain prints, before the judge of tests/explain/prose.py, on random inputs.

Each case draws vectors of one of fourteen kinds or a text, names (odd ones among them), a mask, score rules and one of
the pages; all four formats are read, on terminals of 40 to 100 columns and of 2000.
"""

import tempfile
from pathlib import Path

from tests.explain import prose
from tests.explain.cases import case


def check(seed: int) -> None:
    """One case: raises where a page says what is not so, or what nobody has learned to check."""
    with tempfile.TemporaryDirectory() as folder:
        prose.judge(case(seed, Path(folder)))


def describe(seed: int) -> str:
    """The input of a case, and the page that is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        return str(case(seed, Path(folder)))
