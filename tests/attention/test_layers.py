"""The layer is the definition between matrices, and its gradients are those of finite differences."""

from functools import partial

import numpy as np
import pytest

from clearhead import Attended, DtypeError, InputError, ShapeError, alibi, bias, self_attention, window
from clearhead.definition import textbook
from clearhead.layers import SelfAttention
from tests import arrays

random = partial(arrays.random, dtype=np.float64)


def layer(heads=4, key_heads=2, dim=8, d=3, dv=5, out=6, **rules):
    return SelfAttention(
        random(dim, heads * d), random(dim, key_heads * d, seed=1), random(dim, key_heads * dv),
        random(heads * dv, out),
        heads, key_heads, **rules,
    )  # fmt: skip


def by_definition(of, x):
    key_heads = of.key_heads or of.heads

    def heads(matrix, count):
        return (x @ matrix).reshape(*x.shape[:-1], count, -1).swapaxes(-2, -3)

    q, k, v = heads(of.query, of.heads), heads(of.key, key_heads), heads(of.value, key_heads)
    y = textbook.attention(q, k, v, mask=of.mask, score=of.score, scale=of.scale).swapaxes(-2, -3)
    y = y.reshape(*y.shape[:-2], -1)
    return y if of.output is None else y @ of.output


RULES = [{}, {"mask": window(3)}, {"score": alibi(4), "scale": 0.3}]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("shape", [(9, 8), (2, 9, 8), (1, 8)])
def test_a_layer_is_attention_between_matrices(rules, shape):
    x, of = random(*shape, seed=3), layer(**rules)
    np.testing.assert_allclose(of(x), by_definition(of, x), rtol=1e-12, atol=1e-12)


def test_without_parameters_it_is_the_first_approach():
    x = random(7, 5)
    np.testing.assert_array_equal(SelfAttention.plain(5)(x), self_attention(x))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("shape", [(7, 8), (2, 5, 8)])
def test_gradients_are_those_of_finite_differences(rules, shape):
    x, of = random(*shape, seed=4), layer(**rules)
    done = of.forward(x)
    d_y, step = random(*done.y.shape, seed=5), 1e-6
    found = done.backward(d_y)
    for name in ("x", "query", "key", "value", "output"):
        value = x if name == "x" else getattr(of, name)
        gradient = getattr(found, name)
        assert gradient.shape == value.shape
        for at in list(np.ndindex(value.shape))[:: max(1, value.size // 12)]:
            losses = []
            for sign in (1, -1):
                moved = value.copy()
                moved[at] += sign * step
                matrices = {part: getattr(of, part) for part in ("query", "key", "value", "output")}
                if name != "x":
                    matrices[name] = moved
                other = SelfAttention(**matrices, heads=of.heads, key_heads=of.key_heads, **rules)
                losses.append((d_y * other(moved if name == "x" else x)).sum())
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient[at], rel=1e-5, abs=1e-6)


def test_its_weights_can_be_looked_at():
    done = SelfAttention.random(16, 4, seed=1).forward(random(6, 16, dtype=np.float32))
    assert done.attended.weights.shape == (4, 6, 6)
    np.testing.assert_allclose(np.asarray(done.attended.weights).sum(axis=-1), 1, rtol=1e-6)


def test_no_items_have_no_outputs():
    layer = SelfAttention.random(8, 2)
    for shape in ((0, 8), (3, 0, 8), (0, 5, 8)):
        done = layer.forward(np.zeros(shape, np.float32))
        found = done.backward(np.ones(shape, np.float32))
        assert done.y.shape == found.x.shape == shape
        assert not found.query.any()


def test_gradients_of_rules_are_not_made_for_nobody(monkeypatch):
    done, asked, backward = layer(score=bias(random(6, 6))).forward(random(6, 8)), [], Attended.backward

    def noted(self, *given, **options):
        asked.append(options)
        return backward(self, *given, **options)

    monkeypatch.setattr(Attended, "backward", noted)
    done.backward(done.y)
    assert asked == [{"rules": False}]


def test_what_does_not_fit_is_told():
    a, b = random(8, 8), random(8, 4)
    with pytest.raises(ShapeError, match=r"key \(8, 4\)"):
        SelfAttention(a, b, a, heads=2)
    with pytest.raises(ShapeError, match="two axes"):
        SelfAttention(a[0], a, a)
    with pytest.raises(DtypeError, match="float32"):
        SelfAttention(a, a.astype(np.float32), a)
    with pytest.raises(InputError, match="3 heads"):
        SelfAttention(random(8, 9), random(8, 6), random(8, 6), heads=3, key_heads=2)
    with pytest.raises(ShapeError, match="divisor of 10"):
        SelfAttention.random(10, 3)
    with pytest.raises(ShapeError, match=r"\(5, 7\)"):
        SelfAttention.plain(8)(random(5, 7))
    with pytest.raises(ShapeError, match=r"d_y of shape \(2, 8\)"):
        SelfAttention.plain(8).forward(random(3, 8)).backward(random(2, 8))
    with pytest.raises(DtypeError, match="real numbers"):
        SelfAttention.plain(8).forward(random(3, 8)).backward(random(3, 8) * 1j)
