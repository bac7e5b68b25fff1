"""A sentence as the page shows it: its word vectors, in full and as near to them as two numbers come.

Decides how vectors are brought to a plane, and how many items the page shows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.words import load

MOST_ITEMS = 12
PLACES = 2  # decimals of a plane's numbers, so that every sum on the page can be done by hand


def sentence(text: str) -> dict[str, Any]:
    """The items of a text, at most 12, with vectors `all` (n, 64) and `plane` (n, 2), and what must be said of them.

    `kept` is the share of the vectors' squared lengths that the plane keeps. Raises InputError where
    there is no word.

    >>> told = sentence("the river bank")
    >>> told["tokens"], len(told["all"][0]), told["plane"][1], round(told["kept"], 2), told["left"]
    (['the', 'river', 'bank'], 64, [-0.44, 0.61], 1.0, 0)
    """
    words = load()
    found = words.embed(text)
    x = found.x[:MOST_ITEMS]
    plane, kept = on_plane(x)
    return {
        "text": text,
        "tokens": list(found.tokens[:MOST_ITEMS]),
        "all": x.tolist(),
        "plane": plane.tolist(),
        "kept": kept,
        "left": len(found.tokens) - len(x),
        "notes": list(found.notes),
    }


def on_plane(x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Vectors (n, d) as (n, 2), rounded, and the share of their squared lengths that is kept.

    Of all planes through the origin it is the one nearest to the vectors (their first two right singular vectors), so
    that dot products, and thereby scores, are kept as well as two numbers can.

    >>> on_plane(np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    (array([[3., 0.],
           [0., 1.]]), 1.0)
    """
    _, lengths, axes = np.linalg.svd(x, full_matrices=False)
    axes = np.concatenate([axes, np.zeros((max(0, 2 - len(axes)), x.shape[1]))])[:2]
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    plane = (x @ (axes * np.where(signs == 0, 1, signs)[:, None]).T).round(PLACES) + 0.0
    whole = float((lengths**2).sum())
    return plane, float((lengths[:2] ** 2).sum() / whole) if whole else 1.0
