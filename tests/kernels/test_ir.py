"""scripts/ir: which kernels it writes, and that it sees a difference."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.append(str(SCRIPTS))

import ir_kernels  # noqa: E402

loader = SourceFileLoader("ir_script", str(SCRIPTS / "ir"))
spec = importlib.util.spec_from_loader(loader.name, loader)
assert spec is not None
script = importlib.util.module_from_spec(spec)
loader.exec_module(script)


def test_the_choice_is_wide():
    names = [f"{isa}-{name}" for isa in ir_kernels.TARGETS for name, _ in ir_kernels.cases(isa)]
    assert len(names) == len(set(names)) >= 120
    words = {word for name in names for word in name.split("-")}
    assert {"forward", "decode", "cached", "sweep", "backward", "peak", "native"} <= words
    assert {"f32", "f64", "f16", "bf16", "int8", "sink", "avx512", "avx2", "neon", "generic"} <= words


def test_each_kind_of_kernel_is_written_as_named():
    specs = {name: spec() for name, spec in ir_kernels.cases("neon")}
    kernels = {kind: kind for kind in ("forward", "decode", "sweep", "backward", "peak")} | {"row": "row_sweep"}
    for name, spec in specs.items():
        kind = name.split("-")[0]
        assert spec.kernel == kernels.get(kind, spec.kernel)
        assert spec.target.isa == "neon"
    assert specs["cached-f32-int8-1"].variant.int8
    assert specs["cached-f32-causal-1"].kernel == "decode"
    assert specs["cached-f32-causal-300"].kernel == "forward"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": "x"}, {"a": "x"}, "IR unchanged: 1 of 1"),
        ({"a": "x\ny"}, {"a": "x\nz"}, "differs: a (2 lines before, 2 now)"),
        ({"a": "x", "b": "x"}, {"a": "x"}, "only before: b"),
        ({"a": "x"}, {"a": "x", "b": "x"}, "only now: b"),
    ],
)
def test_a_difference_is_seen(before, after, told, capsys):
    assert script.compare(before, after, diff=False) == (before != after)
    assert told in capsys.readouterr().out
