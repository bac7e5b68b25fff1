"""Caches on disk: they come back as they were, and a file that fits nothing is told, whatever it holds."""

import os
from functools import partial

import numpy as np
import pytest
from ml_dtypes import bfloat16
from safetensors import safe_open
from safetensors.numpy import save_file

from clearhead import FileError, KeyValueCache, attention, window
from clearhead.testing import check_same_bits
from tests import arrays

KEPT = [(np.float64, None), (np.float16, None), (bfloat16, None), (np.float32, "int8")]


random = partial(arrays.random, dtype=np.float64)


@pytest.mark.parametrize(("dtype", "narrow"), KEPT)
@pytest.mark.parametrize("kept", [None, 1, 100, 10**30])
def test_a_cache_comes_back_at_any_moment(tmp_path, dtype, narrow, kept):
    cache, path = KeyValueCache(window=kept, dtype=narrow), tmp_path / "cache.safetensors"
    q = random(2, 4, 1, 16, dtype=dtype)
    for step, lengths in enumerate([(0, 0), (3, 0), (0, 1), (130, 127), (1, 0), (70, 128), (127, 129), (128, 0)]):
        n = max(*lengths, 1)
        x = random(2, 2, n, 16, dtype=dtype, seed=step)
        cache.append(x, x[..., :8], lengths=lengths)
        cache.save(path)
        again = KeyValueCache.load(path)
        assert (again.lengths, again.window, again.rounding) == (cache.lengths, kept, cache.rounding)
        for number, length in enumerate(cache.lengths):
            assert again.first_key(number) == cache.first_key(number)
            for a, b in zip(again.arrays(number), cache.arrays(number), strict=True):
                check_same_bits(a, b)
            assert cache.arrays(number)[0].shape[1] == length - cache.first_key(number)
        mask = window(min(kept or 50, 50) - 1)
        if all(cache.lengths):
            check_same_bits(attention(q, again, mask=mask), attention(q, cache, mask=mask))


def file_of(tmp_path, change=None, **about):
    """A saved cache of 16 keys, its words changed, or its arrays."""
    cache, path = KeyValueCache(), tmp_path / "cache.safetensors"
    cache.append(random(2, 16, 8), random(2, 16, 8, seed=1))
    cache.save(path)
    with safe_open(path, "numpy") as file:
        arrays, words = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if change:
        arrays = change(arrays["key.0"], arrays["value.0"])
    words |= about
    save_file(
        {name: np.ascontiguousarray(x) for name, x in arrays.items()},
        path,
        {name: text for name, text in words.items() if text is not None},
    )
    return path


WORDS = {
    "counts": [
        "100000", "144", "-5", "0", "15", "9" * 14, str(16 + 128 * 10**6), "16,16", "", "1.5", "１6", " 16", None,
    ],
    "window": ["0", "-5", "x", "1e3", "None", None],
    "batched": ["true", "1", "", None],
    "int8": ["True", "0", "", None],
    "dtype": ["float16", "float32", "bfloat16", "object", "O", "S8", "complex64", "int64", "int8", "", None],
    "rounding": ["1", "nan,nan", "-1,0", "inf,0", "0,0,0", "a,b", "", None],
}  # fmt: skip
ARRAYS = {
    "value heads 1": lambda k, v: {"key.0": k, "value.0": v[:1]},
    "value heads 3": lambda k, v: {"key.0": k, "value.0": np.concatenate([v, v])[:3]},
    "value rows 5": lambda k, v: {"key.0": k, "value.0": v[:, :5]},
    "value rows 20": lambda k, v: {"key.0": k, "value.0": np.concatenate([v, v], 1)[:, :20]},
    "key 1d": lambda k, v: {"key.0": k[0, 0], "value.0": v},
    "key 2d": lambda k, v: {"key.0": k[0], "value.0": v},
    "key 4d": lambda k, v: {"key.0": k[None], "value.0": v},
    "key without dims": lambda k, v: {"key.0": k[..., :0], "value.0": v},
    "key of another dtype": lambda k, v: {"key.0": k.astype(np.float32), "value.0": v},
    "no key": lambda k, v: {"value.0": v},
    "no value": lambda k, v: {"key.0": k},
    "one more": lambda k, v: {"key.0": k, "value.0": v, "key.1": k},
    "scales": lambda k, v: {"key.0": k, "value.0": v, "key_scale.0": k[..., 0], "value_scale.0": v[..., 0]},
    "nothing": lambda k, v: {"x": k},
}
TWO = {"counts": "16,16", "batched": "True"}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WORDS.items() for text in texts])
def test_words_that_fit_nothing_are_told(tmp_path, name, text):
    path = file_of(tmp_path, **{name: text})
    with pytest.raises(FileError, match=r"is not a saved cache \(.+\): give a file that KeyValueCache.save wrote"):
        KeyValueCache.load(path)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_fit_nothing_are_told(tmp_path, name):
    with pytest.raises(FileError, match=r"is not a saved cache \(.+\)"):
        KeyValueCache.load(file_of(tmp_path, ARRAYS[name]))


@pytest.mark.parametrize("change", [lambda x: x[..., :4], lambda x: np.concatenate([x, x]), lambda x: x[:, :3]])
def test_a_second_sequence_of_another_layout_is_told(tmp_path, change):
    path = file_of(tmp_path, lambda k, v: {"key.0": k, "value.0": v, "key.1": change(k), "value.1": change(v)}, **TWO)
    with pytest.raises(FileError, match="is not a saved cache"):
        KeyValueCache.load(path)


def test_what_a_window_has_passed_is_bounded(tmp_path):
    assert KeyValueCache.load(file_of(tmp_path, counts="144", window="5")).lengths == (144,)
    for count, kept in (("144", "130"), ("145", "5"), (str(16 + 128 * 10**12), "5")):
        with pytest.raises(FileError, match="keys"):
            KeyValueCache.load(file_of(tmp_path, counts=count, window=kept))


def test_what_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("not a cache")
    for name in ("pipe", "text", "missing", "."):
        with pytest.raises(FileError, match="is not a saved cache"):
            KeyValueCache.load(tmp_path / name)


def test_any_damaged_byte_is_told_or_read_as_other_numbers(tmp_path):
    path, rng = file_of(tmp_path), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, 700, rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.choice([len(whole), rng.integers(len(whole))])])
        try:
            cache = KeyValueCache.load(path)
        except FileError:
            continue
        assert cache.lengths == (16,)
        attention(random(2, 1, 8), cache)
