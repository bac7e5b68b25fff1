"""What a watch shows, compared with the weights that transformers' eager attention returns."""

import numpy as np


def compare(seen, expected, *, part=None, begins=None, ends=None, atol=2e-5):
    """Compare all layers, sequences and heads of a part with matrices (batch, heads, queries, keys), less padding.

    Tokens of sequence n are those from begins[n] to ends[n]; in cross-attention, keys alone have padding.
    """
    layers = seen.layers(part=part)
    assert len(layers) == len(expected)
    for number, matrix in zip(layers, expected, strict=True):
        batch, _, _, keys = matrix.shape
        assert seen.sequences(part=part) == batch
        for n in range(batch):
            begin, end = (begins or [0] * batch)[n], (ends or [keys] * batch)[n]
            rows = slice(None) if part == "cross" else slice(begin, end)
            real = matrix[n, :, rows, begin:end].detach().float().numpy()
            shown = np.asarray(seen.layer(number, sequence=n, part=part).weights)
            np.testing.assert_allclose(shown, real, atol=atol, err_msg=f"layer {number}, sequence {n}")
