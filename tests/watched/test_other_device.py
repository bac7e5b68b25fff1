"""On another device, a watch copies each new query, key and value to the host once, and computes nothing again."""

import json
import subprocess
import sys
from collections import Counter
from math import prod
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
PASSES, LAYERS = (7, 1, 1, 1, 1, 1), 2
MODELS = "sdpa-bfloat16", "eager-float32"  # how it attends, and its dtype


@pytest.fixture(scope="module")
def every():
    """What a process on such a device tells of each model."""
    command = [sys.executable, "-m", "tests.watched.other_device", *MODELS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(MODELS, map(json.loads, done.stdout.splitlines()[-len(MODELS) :]), strict=True))


@pytest.fixture(params=MODELS)
def told(every, request):
    """What it tells of one."""
    return every[request.param]


def test_the_models_bits_stay(told):
    assert told["equal"]


def test_weights_are_those_of_the_processor(told):
    assert max(told["errors"]) < (0.02 if told["dtype"] == "bfloat16" else 1e-5)
    assert told["steps"] == list(PASSES)
    assert told["ids"]


def test_new_queries_keys_and_values_are_copied_once_as_they_are(told):
    copied = Counter((tuple(shape), dtype) for shape, dtype in told["watched"]["copies"] if len(shape) == 4)
    expected = Counter()
    for queries in PASSES:
        expected[(2, 4, queries, 16), told["dtype"]] += LAYERS
        expected[(2, 2, queries, 16), told["dtype"]] += 2 * LAYERS
    checked = copied - expected
    assert not expected - copied
    assert sum(checked.values()) == 2 * LAYERS, "the model's own rows, of the prompt and of the first token"
    assert all(dtype == "float32" and shape[:2] == (2, 4) and shape[2] <= 7 for shape, dtype in checked)


def test_what_else_is_copied_is_small(told):
    whole = 12 * 2
    unwatched = Counter((tuple(shape), dtype) for shape, dtype in told["unwatched"]["copies"])
    others = Counter((tuple(shape), dtype) for shape, dtype in told["watched"]["copies"] if len(shape) != 4)
    for shape, dtype in others - unwatched:
        assert prod(shape) <= whole, (shape, dtype)
        assert dtype in ("int64", "int32", "bool") or not shape, (shape, dtype)


def test_nothing_is_computed_twice(told):
    assert Counter(told["watched"]["computed"]) == Counter(told["unwatched"]["computed"])
    assert told["watched"]["computed"]
