"""Where llvmlite is missing, or cannot be loaded, the definition computes, with the bits of the kernels."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import clearhead
from clearhead.attention_weights.questions import NEEDS
from clearhead.engine.launch_cache import launches
from clearhead.machine import loading


@pytest.fixture
def by_definition(monkeypatch):
    """A function that calls another as it would be called without llvmlite."""

    def call(function):
        with monkeypatch.context() as there, warnings.catch_warnings():
            warnings.simplefilter("ignore", loading.DefinitionWarning)
            there.setattr(loading, "fault", lambda: "No module named 'llvmlite'")
            launches.clear()
            try:
                return function()
            finally:
                launches.clear()

    return call


def bits(found):
    return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, found)]


q, k, v = (
    np.random.default_rng(n).standard_normal(shape)
    for n, shape in enumerate([(2, 4, 12, 5), (2, 2, 140, 5), (2, 2, 140, 3)])
)
DOCUMENTS = clearhead.documents([60, 80], queries=[4, 8]) & clearhead.causal(align="end")
UNEVEN = clearhead.where(lambda batch, head, query, key: (query + key) % 3 > head - batch) & clearhead.window(
    None, None, align="start"
)
CALLS = {
    "causal": ("float32", {"mask": clearhead.causal(align="end")}),
    "window": ("float64", {"mask": clearhead.window(40, align="end")}),
    "documents": ("float32", {"mask": DOCUMENTS}),
    "rules": ("float32", {"mask": UNEVEN, "score": [clearhead.softcap(3.0)], "sink": np.array([0.5, -1.0, 2.0, 0.0])}),
    "16 bits": ("float16", {"mask": clearhead.full(), "scale": 0.3}),
}


@pytest.mark.parametrize("call", CALLS)
def test_attention_and_weights_have_the_kernels_bits(by_definition, call):
    dtype, rules = CALLS[call]
    operands = [x.astype(dtype) for x in (q, k, v)]

    def found():
        done = clearhead.attend(*operands, **rules)
        w = done.weights
        further = (w.scores, w.map(size=(7, 9), reduce="max")) if call == "rules" else ()
        return done.output, done.unrounded, done.lse, w, w[0, 2, 3:7, ::50], *further

    assert bits(by_definition(found)) == bits(found())


def test_every_question_has_its_answer(by_definition):
    ids = np.random.default_rng(3).integers(0, 5, 140)

    def found():
        return clearhead.weights(q, k, mask=DOCUMENTS).summary(
            *NEEDS, groups={"first": slice(20)}, matches=clearhead.token_matches(ids, queries=12), top=3, window=9, v=v
        )

    slow, fast = by_definition(found), found()
    assert slow.keys() == fast.keys()
    for name in fast:
        np.testing.assert_allclose(slow[name], fast[name], rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("stored", [None, "int8"])
def test_a_cache_has_the_kernels_bits(by_definition, stored):
    cache = clearhead.KeyValueCache(dtype=stored)
    cache.append(k.astype(np.float32), v.astype(np.float32))
    cache.keep(np.arange(0, 140, 2))
    last = q[..., -2:, :].astype(np.float32)

    def found():
        done = clearhead.attend(last, cache, mask=clearhead.window(70, align="end"))
        return done.output, done.lse, done.weights

    assert bits(by_definition(found)) == bits(found())


def test_a_rule_at_fault_is_named(by_definition):
    table = np.zeros(5)
    rule = [lambda score, batch, head, query, key: score + table[key]]
    with pytest.raises(clearhead.TraceError, match="reads place 5 of an axis"):
        by_definition(lambda: clearhead.attention(q, k, v, mask=clearhead.full(), score=rule))


def test_what_needs_a_kernel_says_so(by_definition):
    x = np.zeros((3, 2), np.float32)
    passed = clearhead.KeyValueCache(window=10)
    for _ in range(2):
        passed.append(np.zeros((1, 140, 2)), np.zeros((1, 140, 2)))
    places = clearhead.causal(at=0)
    for needs in (
        lambda: clearhead.partial(x, x, x, first_key=0, mask=places),
        lambda: clearhead.attention(np.zeros((1, 1, 2)), passed, mask=clearhead.window(9)),
    ):
        with pytest.raises(clearhead.MachineError, match="needs machine code, but llvmlite cannot be loaded"):
            by_definition(needs)


def test_a_call_that_would_take_minutes_is_refused(by_definition):
    x = np.zeros((8, 2048, 64), np.float32)
    with pytest.raises(clearhead.MachineError, match=r"4,294,967,296 multiplications, .* at most 1,073,741,824"):
        by_definition(lambda: clearhead.attention(x, x, x))
    with pytest.raises(clearhead.MachineError, match="give fewer items or heads"):
        by_definition(lambda: clearhead.weights(x, x)[0, 0, 0])


IN_FRESH_PYTHON = """
import importlib.abc, json, sys, warnings

class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llvmlite":
            raise OSError("Could not find/load shared object file 'libllvmlite.so'")

if sys.argv[1] == "refused":
    sys.meta_path.insert(0, Refused())

import contextlib, io
import numpy as np
from starlette.testclient import TestClient
import clearhead
from clearhead.cli import main
from clearhead.model import load
from clearhead.reading.answers import Reader
from clearhead.view.command import FIRST_TEXT, small_reading
from clearhead.view.server import application

def said(*arguments):
    "What a command prints, and its exit code."
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(list(arguments))
    return code, out.getvalue(), errors.getvalue()

found = {form: said("explain", "the cat sat", "--format", form) for form in ("text", "markdown", "html")}
x = np.random.default_rng(0).standard_normal((3, 9, 4)).astype(np.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found["self_attention"] = clearhead.self_attention(x).tolist()
    found["attention"] = clearhead.attention(x, x, x).tolist()
    found["generate"] = load().generate("The whale", 4, seed=3)
served = application("token", 8000, lambda: Reader(small_reading("The boat came back.")))
page = TestClient(served, base_url="http://127.0.0.1:8000")
for path in ("", "read", "ask/readings", "ask/sentence?text=a+cat+sat"):
    found[path] = page.get(f"/token/{path}").text
asked = {"reading": 0, "part": "decoder", "layer": 1, "heads": [0, 2], "join": "mean", "measure": "weight"}
asked |= {"by": "row", "at": 4, "row": 0, "column": 0, "how": "max", "z": 0, "r": 0, "c": 0, "from": 0, "to": 5}
for question in ("pair", "heaviest", "trust", "line", "tile", "sheet"):
    answer = page.post(f"/token/ask/{question}", json=asked)
    assert answer.status_code == 200, answer.text
    if question not in ("line", "tile", "sheet"):  # they say how long they took
        found[question] = answer.text
if sys.argv[1] == "refused":
    [notice] = caught
    assert "libllvmlite.so" in str(notice.message), notice
    for needs in (
        lambda: clearhead.attend(x, x, x).backward(x),
        lambda: clearhead.kernel_for(clearhead.problem(x, x, x, mask=clearhead.causal())),
        lambda: __import__("clearhead.gpu"),
    ):
        try:
            needs()
        except clearhead.MachineError as error:
            assert "needs machine code, but llvmlite cannot be loaded" in str(error), error
        else:
            raise AssertionError("no error")
    found["doctor"] = said("doctor")[:2]
    found["bench"] = said("bench", "--seconds", "0", "--shape", "1,1,8,8")
json.dump(found, sys.__stdout__)
"""


def test_explain_view_generate_and_doctor_without_llvmlite():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = {}
    for how in ("refused", "there"):
        command = [sys.executable, "-W", "ignore::Warning", "-c", IN_FRESH_PYTHON, how]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr
        runs[how] = json.loads(done.stdout)
    code, diagnosis = runs["refused"].pop("doctor")
    assert code == 0
    assert "llvmlite             none: Could not find/load shared object file" in diagnosis
    assert "definition float32   pass" in diagnosis
    code, _, error = runs["refused"].pop("bench")
    assert code == 2
    assert "needs machine code, but llvmlite cannot be loaded" in error
    assert runs["refused"] == runs["there"]
