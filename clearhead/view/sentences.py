"""A sentence's word vectors for the page: in full, and projected to two dimensions.

Responsible for the projection and for the number of items on the page.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.words import load

MOST_ITEMS_SHOWN = 12
PLANE_DECIMALS = 2  # few enough to do every sum on the page by hand


def sentence_vectors(text: str) -> dict[str, Any]:
    """The items of a text, at most 12, with vectors `all` (n, 64) and `plane` (n, 2), and the notes on them.

    `kept` is the share of the vectors' squared lengths that the plane keeps. Raises InputError for a text without a
    word.

    >>> answer = sentence_vectors("the river bank")
    >>> answer["tokens"], len(answer["all"][0]), answer["plane"][1], round(answer["kept"], 2), answer["left"]
    (['the', 'river', 'bank'], 64, [-0.44, 0.61], 1.0, 0)
    """
    words = load()
    embedded = words.embed(text)
    x = embedded.x[:MOST_ITEMS_SHOWN]
    plane, kept = project_to_plane(x)
    return {
        "text": text,
        "tokens": list(embedded.tokens[:MOST_ITEMS_SHOWN]),
        "all": x.tolist(),
        "plane": plane.tolist(),
        "kept": kept,
        "left": len(embedded.tokens) - len(x),
        "notes": list(embedded.notes),
    }


def project_to_plane(x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Project vectors (n, d) to (n, 2), rounded; also returns the share of their squared lengths that is kept.

    The plane through the origin nearest to the vectors, spanned by their first two right singular vectors, preserves
    dot products, and therefore scores, as well as two numbers can.

    >>> project_to_plane(np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    (array([[3., 0.],
           [0., 1.]]), 1.0)
    """
    _, lengths, axes = np.linalg.svd(x, full_matrices=False)
    axes = np.concatenate([axes, np.zeros((max(0, 2 - len(axes)), x.shape[1]))])[:2]
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    plane = (x @ (axes * np.where(signs == 0, 1, signs)[:, None]).T).round(PLANE_DECIMALS) + 0.0
    total = float((lengths**2).sum())
    return plane, float((lengths[:2] ** 2).sum() / total) if total else 1.0
