"""The generator against its published vectors, and its statistics."""

import numpy as np
import pytest

from clearhead.rules.threefry import BITS, Numpy, threefry, threefry_number

ONES, PI = (0xFFFFFFFF, 0xFFFFFFFF), (0x243F6A88, 0x85A308D3)
# Random123's known answers: rounds, counter, key, result
KNOWN = [
    (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    (13, ONES, ONES, (0xFD36D048, 0x2D17272C)),
    (13, PI, (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
    (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    (20, ONES, ONES, (0x1CB996FC, 0xBB002BE7)),
    (20, PI, (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "wanted"), KNOWN)
def test_known_answers(rounds, counter, key, wanted):
    def words(pair):
        return tuple(np.asarray(x, np.uint32) for x in pair)

    assert tuple(int(x) for x in threefry(Numpy(), words(key), words(counter), rounds)) == wanted


def test_numbers_look_random_along_both_counters_and_between_keys():
    a = threefry_number(1, 2, np.arange(500)[:, None], np.arange(500)) / 2**BITS
    b = threefry_number(1, 3, np.arange(500)[:, None], np.arange(500)) / 2**BITS
    assert a.min() >= 0
    assert a.max() < 1
    assert abs(a.mean() - 0.5) < 4 / np.sqrt(12 * a.size)
    for x, y in ((a[1:], a[:-1]), (a[:, 1:], a[:, :-1]), (a, a.T), (a, b), (a[:, ::2], b[:, 1::2])):
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 5 / np.sqrt(x.size)
    counts = np.histogram(a, 64, (0, 1))[0]
    assert ((counts - a.size / 64) ** 2 / (a.size / 64)).sum() < 64 + 5 * np.sqrt(128)
