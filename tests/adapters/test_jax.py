"""JAX's attention on clearhead's kernels: jax.nn's own numbers, under jit, vmap and grad."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from clearhead import ShapeError  # noqa: E402
from clearhead.adapters.jax import dot_product_attention  # noqa: E402

B, T, S, N, K, H = 2, 9, 9, 4, 2, 8
RNG = np.random.default_rng(0)


def operands(dtype=np.float32, s=S, key_heads=K):
    shapes = (B, T, N, H), (B, s, key_heads, H), (B, s, key_heads, H)
    return [jax.numpy.asarray(RNG.standard_normal(shape), dtype) for shape in shapes]


CASES = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3, "is_causal": True},
    "window": {"local_window_size": (3, 1)},
    "both sides": {"local_window_size": 2, "is_causal": True},
    "bias": {"bias": RNG.standard_normal((B, N, T, S)).astype(np.float32)},
    "shared bias": {"bias": RNG.standard_normal((1, N, T, S)).astype(np.float32), "is_causal": True},
    "mask": {"mask": (RNG.random((B, 1, T, S)) < 0.6) | np.eye(T, dtype=bool)},
    "lengths": {"key_value_seq_lengths": np.array([9, 4]), "query_seq_lengths": np.array([9, 6])},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("jitted", [False, True])
def test_it_is_jaxs_attention_with_its_gradients(name, jitted):
    q, k, v = operands()
    bias = CASES[name].get("bias")
    options = {key: x for key, x in CASES[name].items() if key != "bias"}
    d = RNG.standard_normal((B, T, N, H)).astype(np.float32)

    def value(attend):
        def loss(q, k, v, bias):
            return (attend(q, k, v, bias, **options) * d).sum()

        inputs = (0, 1, 2) if bias is None else (0, 1, 2, 3)
        both = jax.value_and_grad(loss, inputs)
        return (jax.jit(both) if jitted else both)(q, k, v, bias)

    ours, theirs = value(dot_product_attention), value(jax.nn.dot_product_attention)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None)])
def test_vmap(axes):
    q, k, v = operands()
    stacked = [jax.numpy.stack([x, 2 * x, -x]) if axis == 0 else x for x, axis in zip((q, k, v), axes, strict=True)]
    ours = jax.vmap(lambda *x: dot_product_attention(*x, is_causal=True), in_axes=axes)(*stacked)
    theirs = jax.vmap(lambda *x: jax.nn.dot_product_attention(*x, is_causal=True), in_axes=axes)(*stacked)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_bfloat16_and_other_lengths():
    q, k, v = operands(jax.numpy.bfloat16, s=13)
    ours = dot_product_attention(q, k, v)
    assert ours.dtype == jax.numpy.bfloat16
    theirs = jax.nn.dot_product_attention(*(x.astype(np.float32) for x in (q, k, v)))
    np.testing.assert_allclose(ours.astype(np.float32), theirs, rtol=1e-2, atol=1e-2)


def test_what_does_not_fit_is_told():
    with pytest.raises(ShapeError, match="length, heads, dim"):
        dot_product_attention(np.zeros((3, 4)), np.zeros((3, 4)), np.zeros((3, 4)))
