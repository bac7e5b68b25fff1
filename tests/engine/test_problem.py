"""Every wrong input is answered before anything is computed, naming what is wrong and the next step."""

import numpy as np
import pytest

import clearhead
from clearhead import DtypeError, InputError, ShapeError, attend, attention, causal, full, self_attention


def x(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


REFUSED = {
    "a number": (lambda: self_attention(1.0), ShapeError, ["single number"]),
    "one axis": (lambda: self_attention(x(3)), ShapeError, ["(3,)", "[:, None]"]),
    "no dim": (lambda: self_attention(x(3, 0)), ShapeError, ["(3, 0)", "dim"]),
    "ragged lists": (lambda: self_attention([[1.0, 2.0], [3.0]]), ShapeError, ["rectangular"]),
    "text": (lambda: self_attention([["a", "b"]]), DtypeError, ["str", "float32"]),
    "integers": (lambda: self_attention([[1, 2]]), DtypeError, ["whole numbers", "1.0"]),
    "integer arrays": (lambda: self_attention(np.array([[1, 2]])), DtypeError, ["int64", "astype"]),
    "booleans": (lambda: self_attention([[True, False]]), DtypeError, ["bool", "astype"]),
    "complex": (lambda: self_attention(x(2, 2, dtype=np.complex64)), DtypeError, ["complex64", "real"]),
    "bytes": (lambda: self_attention(x(2, 2, dtype=np.int8)), DtypeError, ["int8", "astype"]),
    "long double": (lambda: self_attention(x(2, 2, dtype=np.longdouble)), DtypeError, ["astype"]),
    "objects": (lambda: self_attention(x(2, 2, dtype=object)), DtypeError, ["object"]),
    "other byte order": (lambda: self_attention(x(2, 2, dtype=">f4")), DtypeError, [">f4", "astype"]),
    "masked array": (lambda: self_attention(np.ma.masked_array(x(2, 2))), InputError, ["masked array", "filled"]),
    "mixed dtypes": (
        lambda: attention(x(2, 2), x(2, 2), x(2, 2, dtype=np.float64)), DtypeError, ["float32", "float64", "astype"],
    ),
    "dims": (lambda: attention(x(2, 3), x(2, 4), x(2, 3)), ShapeError, ["dim 3", "dim 4", "(2, 3)", "(2, 4)"]),
    "lengths": (lambda: attention(x(2, 3), x(2, 3), x(5, 3)), ShapeError, ["2 keys", "5 values"]),
    "alignment": (lambda: attention(x(2, 3), x(5, 3), x(5, 3)), ShapeError, ["2 queries", "5 keys", "align='end'"]),
    "heads": (lambda: attention(x(6, 2, 3), x(4, 2, 3), x(4, 2, 3)), ShapeError, ["6 query heads", "4 key heads"]),
    "key and value heads": (
        lambda: attention(x(8, 2, 3), x(4, 2, 3), x(2, 2, 3)), ShapeError, ["4 key heads", "2 value heads"],
    ),
    "more key heads": (lambda: attention(x(2, 2, 3), x(4, 2, 3), x(4, 2, 3)), ShapeError, ["(2,)", "(4,)"]),
    "batches": (lambda: attention(x(2, 1, 2, 3), x(3, 1, 2, 3), x(3, 1, 2, 3)), ShapeError, ["(2, 1)", "(3, 1)"]),
    "scale": (lambda: attention(x(2, 3), x(2, 3), x(2, 3), scale="big"), InputError, ["'big'", "None"]),
    "infinite scale": (lambda: attention(x(2, 3), x(2, 3), x(2, 3), scale=np.inf), InputError, ["inf", "finite"]),
    "an array as scale": (lambda: attention(x(2, 3), x(2, 3), x(2, 3), scale=[1, 2]), InputError, ["[1, 2]"]),
    "a word as mask": (lambda: attention(x(2, 3), x(2, 3), x(2, 3), mask="causal"), InputError, ["'causal'"]),
    "a matrix as mask": (lambda: attention(x(2, 3), x(2, 3), x(2, 3), mask=x(2, 2)), InputError, ["dense(array)"]),
    "an alignment": (lambda: causal(align="middle"), InputError, ["'middle'", "'start'"]),
    "threads": (lambda: self_attention(x(2, 3), threads=0), InputError, ["threads=0"]),
    "half a thread": (lambda: self_attention(x(2, 3), threads=1.5), InputError, ["threads=1.5"]),
    "out's type": (lambda: self_attention(x(2, 3), out=[]), InputError, ["list", "(2, 3)"]),
    "out's shape": (lambda: self_attention(x(2, 3), out=x(3, 2)), ShapeError, ["(3, 2)", "(2, 3)"]),
    "out's dtype": (lambda: self_attention(x(2, 3), out=x(2, 3, dtype=np.float64)), ShapeError, ["float64", "float32"]),
    "read-only out": (lambda: self_attention(x(2, 3), out=read_only(x(2, 3))), InputError, ["read-only"]),
    "out over itself": (
        lambda: self_attention(x(2, 3), out=np.lib.stride_tricks.as_strided(x(3), (2, 3), (0, 4))),
        ShapeError, ["overlaps itself"],
    ),
}  # fmt: skip


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_in_one_sentence_with_a_next_step(what):
    call, error, words = REFUSED[what]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "\n" not in message
    assert message.endswith((".", "…"))
    assert ":" in message  # what is wrong: what to do next


def test_out_may_not_share_memory_with_an_input():
    both = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    before = both.copy()
    for name, call in {
        "q": lambda: attention(both, before, before, out=both),
        "k": lambda: attention(before, both, before, out=both),
        "v": lambda: attention(before, before, both[::-1], out=both),
    }.items():
        with pytest.raises(ShapeError, match=f"overlaps {name}"):
            call()
    assert np.array_equal(both, before)


def test_out_may_lie_between_the_inputs():
    packed = np.random.default_rng(0).standard_normal((5, 4, 3))
    q, k, v, out = (packed[:, at] for at in range(4))
    wanted = attention(q.copy(), k.copy(), v.copy())
    assert attention(q, k, v, out=out) is out
    assert np.array_equal(out, wanted)


def test_an_out_that_overlaps_is_noticed_even_after_one_that_did_not():
    a, b = np.zeros((4, 3)), np.ones((4, 3))
    self_attention(a, out=b)
    with pytest.raises(ShapeError):
        self_attention(a, out=a)


def test_every_error_is_a_clearhead_error_and_a_usual_python_one():
    assert issubclass(clearhead.ShapeError, ValueError)
    assert issubclass(clearhead.DtypeError, TypeError)
    assert issubclass(clearhead.FileError, OSError)
    assert issubclass(clearhead.MachineError, RuntimeError)
    for error in (ShapeError, DtypeError, InputError, clearhead.FileError, clearhead.MachineError):
        assert issubclass(error, clearhead.ClearheadError)


def test_pairs_are_what_the_mask_lets_through():
    from clearhead.rules.masks import visible

    for mask in (causal(align="end"), causal(align="start"), full()):
        for queries, keys in ((1, 1), (3, 7), (7, 3), (0, 4), (4, 0)):
            asked = clearhead.problem(x(2, queries, 1), x(2, keys, 1), x(2, keys, 1), mask=mask)
            assert asked.pairs == 2 * visible(mask, queries, keys).sum()


def test_a_problem_prints_and_hashes():
    asked = clearhead.problem(x(2, 3, 4), x(2, 3, 4), x(2, 3, 4), mask=causal())
    assert asked == clearhead.problem(x(2, 3, 4), x(2, 3, 4), x(2, 3, 4), mask=causal(align="start"))
    assert "queries=3" in repr(asked)
    assert hash(asked) == hash(clearhead.problem(*[x(2, 3, 4)] * 3, mask=causal()))
    assert repr(causal()) == "causal()"
    assert repr(causal(align="end")) == "causal(align='end')"
    assert repr(full()) == "full()"


def test_attend_checks_as_attention_does():
    with pytest.raises(ShapeError):
        attend(x(2, 3), x(5, 3), x(5, 3))


HUGE = {
    "scale": lambda a: attention(a, a, a, scale=10**5000),
    "softcap": lambda a: clearhead.softcap(10**400),
    "scale of scores": lambda a: clearhead.scale(-(10**400)),
    "alibi": lambda a: clearhead.alibi(2**70),
    "alibi of none": lambda a: clearhead.alibi(0),
    "relative": lambda a: clearhead.relative(np.ones((1, 8)), 2**70),
    "documents": lambda a: attention(a, a, a, mask=clearhead.documents([2**70])),
    "top": lambda a: clearhead.weights(a, a).summary("top", top=2**70),
}


@pytest.mark.parametrize("name", HUGE)
def test_numbers_of_any_size_are_told(name):
    with pytest.raises(InputError) as caught:
        HUGE[name](x(3, 3))
    assert len(str(caught.value)) < 500


def test_masks_reach_beyond_all_lengths():
    a = x(3, 3)
    wide = (clearhead.window(2**70), clearhead.prefix(2**70) & causal(), clearhead.blocks([[True]], 2**70) & causal())
    for mask in wide:
        assert np.array_equal(attention(a, a, a, mask=mask), attention(a, a, a))
    assert clearhead.weights(a, a).summary("within", window=2**70).within.tolist() == [1, 1, 1]
    found = clearhead.weights(a, a).summary("top", top=5)
    assert found.top_keys[1].tolist()[2:] == [-1, -1, -1]
    assert found.top_weights.shape == (3, 5)
