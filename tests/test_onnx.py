"""ONNX's Attention operator: every node case that the onnx package generates, through one call of the public API.

Decides how attributes and inputs of the operator (opsets 23 to 25) become operands, a mask and score rules; what those
mean is clearhead's, and what counts as close enough is ONNX's own runner's. `docs/onnx.md` tells the same to users.
"""

import importlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.runner import Runner

from clearhead import attend, bias, causal, dense, full, softcap, where, window
from clearhead.definition import textbook
from clearhead.rules.placement import states_place

importlib.import_module(f"{node_cases.__name__}.attention")  # makes its cases; those of all operators take 5 seconds
FOUND = [case for case in node_cases._NodeTestCases if case.name.startswith("test_attention")]
CASES = {case.name: case for case in FOUND if not case.name.endswith("_expanded")}
PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"


def test_every_case_is_found():
    assert len(CASES) == 93, f"onnx {onnx.__version__} has other cases than 1.23.2"
    assert len(FOUND) == 2 * len(CASES)  # each comes again as "_expanded": the same data for a graph of simpler nodes
    with np.errstate(all="ignore"):  # other operators' cases overflow on purpose
        every = {case.name for case in node_cases.collect_testcases("Attention")}
    assert {name for name in every if name.startswith("test_attention")} == {case.name for case in FOUND}


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name):
    check(CASES[name])


def test_the_page_counts_right():
    counts = Counter((feature, opset_of(case)) for case in CASES.values() for feature in features(case))
    rows = {feature: [counts[feature, opset] for opset in (23, 24, 25)] for feature, _ in counts}
    table = [f"| {feature} | {' | '.join(map(str, row))} | {sum(row)} |" for feature, row in rows.items()]
    written = [line for line in PAGE.read_text().splitlines() if re.search(r"\| \d+ \|$", line)]
    assert sorted(written) == sorted(table)


def check(case):
    """All outputs are within the case's tolerances, the caches exactly equal."""
    ((_, wanted),) = case.data_sets
    node, attributes, inputs = parts(case)
    found = run(attributes, inputs)
    outputs = [found[name] for name in node.output if name]
    Runner.assert_similar_outputs(wanted, outputs, case.rtol, case.atol)
    for name, array in zip(filter(None, node.output), wanted, strict=True):
        if name in ("present_key", "present_value"):
            np.testing.assert_array_equal(found[name], array)


def features(case):
    """What of the operator a case uses, in the words of docs/onnx.md."""
    node, attributes, inputs = parts(case)
    q, k, v = inputs["Q"], inputs["K"], inputs["V"]
    heads = [attributes.get(f"{x}_num_heads", array.shape[1]) for x, array in (("q", q), ("kv", k))]
    table = inputs.get("attn_mask", np.empty(0, object))
    uses = {
        "**all cases**": True,
        q.dtype.name: True,
        "`scale`": "scale" in attributes,
        "`is_causal`": attributes.get("is_causal"),
        "`left_window_size`": attributes.get("left_window_size", -1) >= 0,
        "`right_window_size`": attributes.get("right_window_size", -1) >= 0,
        "`attn_mask` of booleans": table.dtype == bool,
        "`attn_mask` of floats": table.dtype == q.dtype,
        "`nonpad_kv_seqlen`": "nonpad_kv_seqlen" in inputs,
        "`past_key`, `past_value`": "past_key" in inputs,
        "`softcap`": attributes.get("softcap"),
        "`softmax_precision`": "softmax_precision" in attributes,
        "fewer key heads than query heads": heads[0] != heads[1],
        "value dim other than key dim": k.shape[-1] != v.shape[-1],
        "three axes": q.ndim == 3,
        f"`qk_matmul_output`, mode {attributes.get('qk_matmul_output_mode', 0)}": "qk_matmul_output" in node.output,
    }
    return [feature for feature, used in uses.items() if used]


def opset_of(case):
    """The version of the operator set that a case is for."""
    (opset,) = case.model.opset_import
    return opset.version


def parts(case):
    """The case's only node, its attributes and its inputs by name."""
    (node,), ((arrays, _),) = case.model.graph.node, case.data_sets
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return node, attributes, dict(zip(filter(None, node.input), arrays, strict=True))


def run(attributes, inputs):
    """All outputs of one node."""
    q = heads_apart(inputs["Q"], attributes.get("q_num_heads"))
    k, v = (heads_apart(inputs[name], attributes.get("kv_num_heads")) for name in "KV")
    if "past_key" in inputs:
        k, v = (np.concatenate([inputs[f"past_{name}"], new], axis=2) for name, new in (("key", k), ("value", v)))
    mask, biases = mask_of(attributes, inputs, q, k), biases_of(inputs, k)
    caps = [softcap(attributes["softcap"])] if attributes.get("softcap") else []
    scale = attributes.get("scale")
    done = attend(q, k, v, mask=mask, score=caps + biases, scale=scale)

    mode = attributes.get("qk_matmul_output_mode", 0)
    rules = ([], caps, caps + biases, caps + biases)[mode]
    return {
        "Y": done.output if inputs["Q"].ndim == 4 else heads_joined(done.output),
        "present_key": k,
        "present_value": v,
        "qk_matmul_output": matrix(q, k, mask, rules, scale, masked=mode >= 2, lse=done.lse if mode == 3 else None),
    }


def mask_of(attributes, inputs, q, k):
    """What each query may see: is_causal, the window, the lengths without padding and a mask of booleans together."""
    mask, lengths, queries = full(), inputs.get("nonpad_kv_seqlen"), q.shape[2]
    before = inputs["past_key"].shape[2] if "past_key" in inputs else 0  # keys before the first query
    if lengths is not None:
        mask &= where(lambda batch, head, query, key: key < lengths[batch])
        before = lengths - queries
    if attributes.get("is_causal"):
        mask &= band(None, 0, before, q, k)
    sides = [attributes.get(f"{side}_window_size", -1) for side in ("left", "right")]
    if max(sides) >= 0:
        mask &= band(*(None if size < 0 else size for size in sides), before, q, k)  # type: ignore[call-arg]
    if "attn_mask" in inputs and inputs["attn_mask"].dtype == bool:
        mask &= dense(padded(inputs["attn_mask"], k, False))
    return mask if states_place(mask) else mask & window(None, None, align="start")


def band(left, right, before, q, k):
    """`left` keys before each query to `right` after; `before` keys, in each batch its own, precede the first query."""
    aligns = {0: "start", k.shape[2] - q.shape[2]: "end"}
    if np.ndim(before) == 0 and before in aligns:
        align = aligns[before]
        return causal(align=align) if (left, right) == (None, 0) else window(left, right, align=align)
    first = np.broadcast_to(before, len(q))

    def seen(batch, head, query, key):
        distance = key - query - first[batch]
        inside = key >= 0
        inside = inside if left is None else inside & (distance >= -left)
        return inside if right is None else inside & (distance <= right)

    return where(seen)


def biases_of(inputs, k):
    """A mask of floats is added to the scores; `bias` takes no bfloat16."""
    if "attn_mask" not in inputs or inputs["attn_mask"].dtype == bool:
        return []
    table = inputs["attn_mask"]
    return [bias(padded(table, k, -np.inf))]


def padded(table, k, value):
    """A mask may be shorter than the keys, which hides those beyond its end, and may have but one axis."""
    table = np.atleast_2d(table)
    missing = [(0, 0)] * (table.ndim - 1) + [(0, k.shape[2] - table.shape[-1])]
    return np.pad(table, missing, constant_values=value)


def matrix(q, k, mask, rules, scale, *, masked, lse):
    """The scores after some of the rules, or, given the kernel's LSE, the weights: the definition's matrix in full."""
    wide = np.float64 if q.dtype == np.float64 else np.float32
    k = textbook.share_heads(k, q)
    s, seen = textbook.ruled_scores(q.astype(wide), k.astype(wide), k.shape[:2], mask, rules, scale)
    s = np.where(seen, s, -np.inf) if masked else s
    if lse is not None:
        s = np.exp(s - np.where(np.isneginf(lse), 0, lse)[..., None])  # a row that sees nothing has weights of 0
    return s.astype(q.dtype)


def heads_apart(x, heads):
    """(batch, length, heads · dim) → (batch, heads, length, dim), a view; what has four axes stays."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def heads_joined(x):
    """(batch, heads, length, dim) → (batch, length, heads · dim)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
