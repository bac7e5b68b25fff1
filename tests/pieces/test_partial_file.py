"""Partial sums that are pickled, or saved and loaded: the same bits, or an error."""

import pickle

import numpy as np
import pytest
from ml_dtypes import bfloat16
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from clearhead import FileError, InputError, Partial, attend, causal, join, partial
from tests.arrays import random

SEGMENT = 2048


def pair(dtype: type) -> tuple[np.ndarray, Partial, Partial]:
    """The output of one call, and its keys' sums in two parts."""
    q, k, v = (random(2, SEGMENT + 9, 4, seed=n).astype(dtype) for n in range(3))
    own = {"mask": causal(at=SEGMENT - 3)}
    q = q[:, SEGMENT - 3 :]
    first = partial(q, k[:, :SEGMENT], v[:, :SEGMENT], **own)
    second = partial(q, k[:, SEGMENT:], v[:, SEGMENT:], first_key=SEGMENT, **own)
    return attend(q, k, v, mask=causal(align="end")).output, first, second


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bfloat16])
def test_sums_travel_with_their_bits(dtype, tmp_path):
    wanted, first, second = pair(dtype)
    first.save(tmp_path / "first.safetensors")
    loaded, sent = Partial.load(tmp_path / "first.safetensors"), pickle.loads(pickle.dumps(second))  # noqa: S301
    assert repr(loaded) == repr(first)
    assert (loaded.origin, sent.origin) == (first.origin, second.origin)
    for part, other in ((loaded, first), (sent, second)):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(part.sums, other.sums, strict=True))
    done = join(loaded, sent).finish()
    assert done.output.dtype == wanted.dtype
    assert done.output.tobytes() == wanted.tobytes()
    with pytest.raises(InputError, match="was joined, loaded or pickled"):
        loaded.then(random(2, 3, 4), random(2, 3, 4))
    first.save(tmp_path / "first.safetensors")  # replaces the older one
    assert [path.name for path in tmp_path.iterdir()] == ["first.safetensors"]


def test_a_file_that_is_not_one_is_refused(tmp_path):
    first = pair(np.float32)[1]
    path = tmp_path / "part.safetensors"
    with pytest.raises(FileError, match="does not exist"):
        Partial.load(path)
    first.save(path)
    whole = path.read_bytes()
    good = {"first_key": "0", "stop": "2048", "segments": "1", "dtype": "float32", "at": "0", "rules": "0"}
    arrays = load_file(path)
    save_file(arrays, path, good)
    assert Partial.load(path).stop == 2048
    flat = {"m": np.zeros((), np.float32), "l": np.zeros((), np.float32), "o": np.zeros(3, np.float32)}
    point = dict.fromkeys("mlo", np.zeros((), np.float32))
    changes = [
        (arrays, good | {"stop": "-1"}), (arrays, good | {"first_key": "4096"}), (arrays, good | {"dtype": "int8"}),
        (arrays, good | {"segments": "9999"}), (arrays, good | {"dtype": "float64"}), (arrays, {}),
        (arrays | {"more": arrays["m"]}, good), ({"m": arrays["m"], "l": arrays["l"]}, good),
        (arrays | {"l": arrays["l"][:, :1]}, good), (arrays, good | {"at": "-1"}), (flat, good), (point, good),
        (arrays | {"o": arrays["o"][..., :0]}, good), (arrays, good | {"segments": "0"}),
        (arrays | {"l": -arrays["l"]}, good),
    ]  # fmt: skip
    for content, metadata in changes:
        save_file({name: np.ascontiguousarray(x) for name, x in content.items()}, path, metadata)
        with pytest.raises(FileError, match="is not a saved partial sum"):
            Partial.load(path)
    for broken in (b"", whole[:100], whole[:-1], b"x" * 50):
        path.write_bytes(broken)
        with pytest.raises(FileError, match="is not a saved partial sum"):
            Partial.load(path)


@pytest.mark.parametrize("where", ["m", "l"])
def test_sums_that_are_not_numbers_need_outputs_that_are_not(tmp_path, where):
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    k = x.copy()
    k[2] = np.nan
    path = tmp_path / "p.safetensors"
    partial(x, k, x, mask=causal(at=0)).save(path)
    assert np.isnan(Partial.load(path).finish().output[2:]).all()  # what was saved is loaded
    arrays = load_file(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    arrays[where][0] = np.nan
    save_file(arrays, path, metadata)
    with pytest.raises(FileError, match="sums that are not numbers"):
        Partial.load(path)
