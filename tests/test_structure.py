"""The package's structure: floors, no circles, the public names, and names that hide nothing.

Imports inside functions and imports for types count like any other.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import clearhead

PACKAGE = Path(clearhead.__file__).parent
DESIGN = PACKAGE.parent / "docs/design.md"
FACE = {"clearhead", "clearhead.__main__"}  # they may import anything


def modules() -> dict[str, Path]:
    """Where each module's source is, by its name."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """The package's own modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0) if module.split(".")[0] == "clearhead":
                for alias in names:
                    full = f"{module}.{alias.name}"
                    yield full if full in MODULES else module
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in MODULES)
            case ast.Call(func=ast.Name(id="late"), args=[ast.Constant(value=str(name))]) if name in MODULES:
                yield name


@cache
def arrows() -> dict[str, list[str]]:
    """What each module imports of the package; found when first asked for, since it takes two seconds."""
    return {name: sorted(set(imported(ast.parse(path.read_text()))) - {name}) for name, path in MODULES.items()}


def floors() -> dict[str, int]:
    """Each room's floor, as docs/design.md has it."""
    rows = re.findall(r"^\| [a-z]+ \| (`[^|]+`) \|", DESIGN.read_text(), re.M)
    return {f"clearhead.{room}": n for n, row in enumerate(rows) for room in re.findall(r"`([\w.]+)`", row)}


FLOORS = floors()


def room_of(module: str) -> str:
    """The room that a module is in: the longest name of one that it begins with."""
    rooms = [room for room in FLOORS if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default="")


def test_every_module_has_a_floor():
    assert len(FLOORS) > 25
    homeless = [name for name in MODULES if name not in FACE and not room_of(name)]
    assert homeless in ([], ["clearhead.adapters"])


def test_nothing_lower_imports_anything_higher():
    upward = [
        f"{name} → {other}"
        for name, others in arrows().items()
        if name not in FACE
        for other in others
        if other not in FACE and room_of(other) and FLOORS[room_of(other)] > FLOORS.get(room_of(name), 99)
    ]
    assert not upward
    above = {name for name, others in arrows().items() if "clearhead" in others} - FACE
    assert {room_of(name) for name in above} <= {"clearhead.cli"}


def circles(arrows: dict[str, list[str]]) -> list[list[str]]:
    """Modules that import each other, directly or through others."""
    reach: dict[str, set[str]] = {}
    for start in arrows:
        seen, left = set[str](), list(arrows[start])
        while left:
            name = left.pop()
            if name not in seen:
                seen.add(name)
                left += arrows.get(name, [])
        reach[start] = seen
    return [sorted(other for other in reach[name] if name in reach[other]) for name in reach if name in reach[name]]


def test_no_modules_import_each_other():
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [["a", "b", "c"]] * 3
    assert not circles(arrows())


PUBLIC = {
    "clearhead": [
        "Alignment", "Attended", "ClearheadError", "Direction", "DtypeError", "FileError", "Gradients",
        "HeavyWeight", "InputError", "KeyGradients", "KeyValueCache", "MachineError", "Mask", "Match",
        "Partial", "PeerError", "Problem", "QueryGradient", "RankedHead", "Score", "Second", "ShapeError",
        "Summary", "TraceError", "TrustError", "Watch", "Weights", "alibi", "alignment", "attend", "attention",
        "bias", "blocks", "causal", "dense", "dilated", "documents", "eviction", "flow", "full", "functions",
        "head_outputs", "heaviest_keys", "heaviest_rows", "intervene", "join", "kernel_for",
        "key_contributions", "key_gradients", "load_watch", "merge", "output_gradients", "output_norms",
        "partial", "prefix", "problem", "query_gradient", "rank_heads", "relative", "relevance", "rollout",
        "scale", "self_attention", "similarity", "softcap", "token_matches", "watch", "weight_gradients",
        "weights", "weights_times_gradients", "where", "window",
    ],
    "clearhead.testing": ["check_definition", "check_hidden", "check_invariance", "check_same_bits", "using_isa"],
    "clearhead.eviction": ["h2o", "most", "snapkv", "tova"],
    "clearhead.gpu": ["attend"],
    "clearhead.layers": ["SelfAttention"],
    "clearhead.notebook": ["Learn", "Read"],
    "clearhead.plot": ["heads", "heat", "profile", "received", "row", "save"],
    "clearhead.definition.textbook": ["attention", "self_attention", "softmax"],
    "clearhead.definition.canonical": ["attention"],
    "clearhead.definition.pieces": ["finish", "join", "partial"],
    "clearhead.pieces": ["piece_gradients", "query_cut", "segments"],
    "clearhead.pieces.partial": ["Partial", "join", "partial"],
    "clearhead.pieces.gradients": ["key_gradients", "query_gradient"],
    "clearhead.definition.weights": ["weights"],
    "clearhead.definition.eviction": ["h2o", "most", "snapkv", "tova"],
    "clearhead.definition.gradient": ["gradients"],
    "clearhead.definition.gradient_pieces": ["key_gradients", "query_gradient"],
    "clearhead.definition.tangent": ["second"],
    "clearhead.rules.masks": ["causal", "full", "visible", "window"],
    "clearhead.rules.scores": ["alibi", "bias", "softcap"],
    "clearhead.rules.functions": [
        "acos", "asin", "atan", "atan2", "cbrt", "ceil", "clip", "copysign", "cos", "cosh", "erf", "erfc", "exp",
        "exp2", "expm1", "floor", "floor_divide", "fmod", "gelu", "integer", "isfinite", "isinf", "isnan",
        "log", "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum",
        "minimum", "power", "reciprocal", "relu", "remainder", "round", "rsqrt", "sigmoid", "sign", "silu",
        "sin", "sinc", "sinh", "softplus", "sqrt", "square", "tan", "tanh", "trunc", "where",
    ],
    "clearhead.explain": ["explain"],
    "clearhead.view": ["show"],
    "clearhead.model": ["Model", "Tokenizer", "load"],
    "clearhead.words": ["load", "read_embeddings", "split"],
    "clearhead.cli": ["main"],
    "clearhead.adapters.torch": [
        "attend", "attention", "attention_weights", "flash_attn_func", "flash_attn_with_kvcache", "flex_attention",
        "nn", "patch", "scaled_dot_product_attention",
    ],
    "clearhead.adapters.torch.distributed": [
        "Layout", "PeerError", "shard", "sharded_attention", "sharded_decode", "unshard",
    ],
    "clearhead.adapters.torch.bert_padding": ["pad_input", "unpad_input"],
    "clearhead.adapters.torch.flash_attn_interface": ["flash_attn_func"],
    "clearhead.adapters.jax": ["dot_product_attention"],
    "clearhead.adapters.transformers": [
        "NAME", "Attribution", "attention_forward", "logit_attribution", "mask_forward", "output_matrices",
    ],
    "clearhead.adapters.transformers.eviction": ["keep"],
}  # fmt: skip


@pytest.mark.parametrize("path", PUBLIC)
def test_public_names_stay(path):
    module = importlib.import_module(path)
    assert not [name for name in PUBLIC[path] if not hasattr(module, name)]


def test_the_list_of_public_names_is_whole():
    assert sorted(clearhead.__all__) == sorted([*PUBLIC["clearhead"], "__version__"])


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name not in FACE))
def test_no_name_hides_a_module(name):
    """`import clearhead.x as m` must give the module x, not a function that the package calls x, too."""
    package, _, own = name.rpartition(".")
    if (PACKAGE.parent / package.replace(".", "/")).is_dir():
        module = importlib.import_module(name)
        assert isinstance(getattr(importlib.import_module(package), own, module), ModuleType)


def test_all_modules_are_found():
    found = {info.name for info in pkgutil.walk_packages([str(PACKAGE)], "clearhead.", onerror=lambda _: None)}
    assert found | {"clearhead"} == set(MODULES)


SCRIPTS = [path for path in sorted((PACKAGE.parent / "scripts").iterdir()) if path.is_file()]


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if "python" in path.read_text().partition("\n")[0]], ids=str
)
def test_scripts_import_names_that_exist(script):
    """Scripts that no test runs still name what the package has."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clearhead"):
            pytest.importorskip("torch") if "adapters" in (node.module or "") else None
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or full in MODULES, f"{full} does not exist"
