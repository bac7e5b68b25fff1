"""JAX's attention for a piece of a sequence: `query_offset`, traced or not, has the bits of the whole."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from clearhead import DtypeError, InputError, ShapeError  # noqa: E402
from clearhead.adapters.jax import dot_product_attention  # noqa: E402
from clearhead.adapters.jax import ffi as call  # noqa: E402
from clearhead.definition import textbook  # noqa: E402
from clearhead.rules import masks  # noqa: E402

LENGTH, BATCH, HEADS, KEY_HEADS, DIM = 2300, 2, 4, 2, 16
RNG = np.random.default_rng(0)
LENGTHS = np.array([LENGTH, 1400])
RULES: dict[str, dict[str, Any]] = {
    "causal": {"is_causal": True},
    "window": {"local_window_size": (70, 3)},
    "causal window": {"local_window_size": 70, "is_causal": True},
    "lengths": {"is_causal": True, "query_seq_lengths": LENGTHS, "key_value_seq_lengths": LENGTHS - 7},
}
PIECES = {"first": (0, 50), "middle": (1300, 1500), "one": (2048, 2049), "last": (LENGTH - 3, LENGTH)}


def operands(length=LENGTH, dtype=np.float32, batch=BATCH):
    shapes = [(batch, length, heads, DIM) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [jax.numpy.asarray(RNG.standard_normal(shape), dtype) for shape in shapes]


def assert_same_bits(got, wanted):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_has_the_bits_that_it_has_in_the_whole(name, piece):
    (q, k, v), (a, b) = operands(), PIECES[piece]
    d = RNG.standard_normal(q.shape).astype(np.float32)

    def attend(q, k, v, d, offset):
        def loss(q, k, v):
            output, lse = dot_product_attention(q, k, v, query_offset=offset, return_residual=True, **RULES[name])
            return (output * d).sum(), (output, lse)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)

    (dq, _, _), results = attend(q, k, v, d, 0)
    traced = jax.jit(attend)(q[:, a:b], k, v, d[:, a:b], a)
    (dq_piece, _, _), results_piece = traced
    assert_same_bits((dq_piece, results_piece), jax.tree.map(lambda x: x[:, a:b], (dq, results)))
    assert_same_bits(traced, attend(q[:, a:b], k, v, d[:, a:b], a))
    assert_same_bits(traced, attend(q[:, a:b], k, v, d[:, a:b], np.full(BATCH, a)))


@pytest.mark.parametrize("dtype", [np.float16, jax.numpy.bfloat16, np.float64])
def test_pieces_of_other_dtypes(dtype):
    with jax.enable_x64(dtype == np.float64):
        q, k, v = operands(dtype=dtype)
        whole = dot_product_attention(q, k, v, is_causal=True)
        attend = jax.jit(lambda q, at: dot_product_attention(q, k, v, is_causal=True, query_offset=at))
        for a, b in PIECES.values():
            assert_same_bits(attend(q[:, a:b], a), whole[:, a:b])


def test_gradients_of_keys_and_values_sum_up_over_the_pieces():
    q, k, v = operands(300)

    def attend(q, k, v, at):
        return dot_product_attention(q, k, v, is_causal=True, local_window_size=90, query_offset=at)

    @jax.jit
    def gradients(q, k, v, at):
        return jax.grad(lambda q, k, v: (attend(q, k, v, at) ** 2).sum(), (0, 1, 2))(q, k, v)

    dq, dk, dv = gradients(q, k, v, 0)
    parts = [gradients(q[:, a : a + 100], k, v, a) for a in (0, 100, 200)]
    assert_same_bits(jax.numpy.concatenate([part[0] for part in parts], 1), dq)
    for n, whole in ((1, dk), (2, dv)):
        np.testing.assert_allclose(sum(part[n] for part in parts), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rules", [RULES["causal"], RULES["window"], RULES["causal window"]])
def test_vmap_and_batches_of_offsets_are_each_piece_alone(rules):
    offsets = np.array([[0, 1300], [700, 7], [2290, 2290]])
    q, (_, k, v) = operands(10, batch=6)[0].reshape(3, 2, 10, HEADS, DIM), operands()

    def both(q, k, v, at):
        def loss(q, k, v):
            output = dot_product_attention(q, k, v, query_offset=at, **rules)
            return (output**2).sum(), output

        return jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)

    alone = [[both(q[i, j], k[j], v[j], int(offsets[i, j])) for j in range(2)] for i in range(3)]
    for i in range(3):
        wanted = jax.tree.map(lambda *x: jax.numpy.stack(x), *alone[i])
        assert_same_bits(jax.jit(both)(q[i], k, v, offsets[i]), wanted)
    wanted = jax.tree.map(lambda *x: jax.numpy.stack(x), *(row[0] for row in alone))
    assert_same_bits(jax.jit(jax.vmap(both, (0, None, None, 0)))(q[:, 0], k[0], v[0], offsets[:, 0]), wanted)


EXTREMES = (-(2**31), -30, -29, -20, -1, 0, 29, 57, 58, 59, 63, 64, 67, 68, 130, 2**31 - 1)


@pytest.mark.parametrize("sides", [(None, 0), (9, 4), (2**40, 0)])
def test_any_integer_is_a_position(sides):
    """Against the definition, and the same bits as a table of what is seen, with gradients."""
    queries, keys = 30, 59
    (q, _, _), (_, k, v) = operands(queries), operands(keys)
    left, right = sides
    rules = {"is_causal": True} if left is None else {"local_window_size": sides}

    @jax.jit
    def attend(q, k, v, **given):
        def loss(q, k, v):
            output = dot_product_attention(q, k, v, **(rules if "query_offset" in given else {}), **given)
            return (output**2).sum(), output

        return jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)

    for offset in EXTREMES:
        distance = np.arange(keys) - np.arange(queries)[:, None] - offset
        seen = (distance <= right) & (distance >= (-(2**50) if left is None else -left))
        got = attend(q, k, v, query_offset=offset)
        assert_same_bits(got, attend(q, k, v, mask=seen))
        assert_same_bits(attend(q, k, v, query_offset=np.array([5, offset]))[1][1], got[1][1])
        turned = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q, k, v))
        wanted = textbook.attention(*turned, mask=masks.dense(seen)).swapaxes(1, 2)
        np.testing.assert_allclose(got[1], wanted, atol=1e-5)


def test_rows_of_tables_are_those_of_the_piece():
    (q, k, v), (a, b) = operands(200), (70, 150)
    bias = RNG.standard_normal((1, HEADS, 200, 200)).astype(np.float32)
    mask = (RNG.random((BATCH, 1, 200, 200)) < 0.6) | np.eye(200, dtype=bool)

    def both(q, bias, mask, at):
        def loss(q, bias):
            output = dot_product_attention(q, k, v, bias, mask, is_causal=True, query_offset=at)
            return (output**2).sum(), output

        return jax.grad(loss, (0, 1), has_aux=True)(q, bias)

    (dq, d_bias), whole = both(q, bias, mask, 0)
    (dq_piece, d_piece), piece = jax.jit(both)(q[:, a:b], bias[:, :, a:b], mask[:, :, a:b], a)
    assert_same_bits((dq_piece, d_piece, piece), (dq[:, a:b], d_bias[:, :, a:b], whole[:, a:b]))


def test_a_cache_of_fixed_size_needs_no_mask():
    q, k, v = operands(40)
    room = [jax.numpy.pad(x, ((0, 0), (0, 60), (0, 0), (0, 0)), constant_values=np.nan) for x in (k, v)]
    step = jax.jit(lambda q, k, v, at: dot_product_attention(q, k, v, is_causal=True, query_offset=at))
    steps = [step(q[:, n : n + 1], *room, n) for n in range(40)]
    assert_same_bits(jax.numpy.concatenate(steps, 1), dot_product_attention(q, k, v, is_causal=True))
    assert step._cache_size() == 1


WRONG = {
    "floats": (1.5, DtypeError, "query_offset has dtype float32: give integers"),
    "flag": (True, DtypeError, "query_offset has dtype bool: give integers"),
    "shape": ([1, 2, 3], ShapeError, r"query_offset has shape \(3,\): give one position, or one for each"),
    "axes": ([[1], [2]], ShapeError, r"query_offset has shape \(2, 1\)"),
    "large": (2**40, InputError, "query_offset=1099511627776 does not fit into 32 bits"),
    "nothing": (None, InputError, "query_offset is NoneType"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_position_is_told_while_it_is_traced(name):
    offset, error, words = WRONG[name]
    q, k, v = operands(5)
    with pytest.raises(error, match=words):
        jax.jit(lambda: dot_product_attention(q, k, v, query_offset=offset))()


def test_exported_programs_take_their_offset_when_they_run():
    q, k, v = operands(60)
    attend = jax.jit(lambda q, k, v, at: dot_product_attention(q, k, v, is_causal=True, query_offset=at))
    piece = q[:, 20:45]
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("clearhead")]
    exported = jax.export.export(attend, disabled_checks=unchecked)(piece, k, v, np.int32(0))
    wanted = dot_product_attention(q, k, v, is_causal=True)[:, 20:45]
    assert_same_bits(exported.call(piece, k, v, np.int32(20)), wanted)


def test_programs_exported_before_there_was_an_offset_still_run():
    q, k, v = map(np.asarray, operands(9))
    result = np.empty_like(q)
    options = {"scale": 0.25, "causal": True, "window": None, "residual": False, "tables": [False] * 4}
    call.functions["attended"](options, [q, k, v], [result])
    assert_same_bits(result, dot_product_attention(q, k, v, is_causal=True))


TWO_DEVICES = {
    **os.environ,
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
}
DOCUMENTED = f"""
import doctest, jax, sys
assert jax.device_count() == 2
done = doctest.testfile({str(Path(__file__).parents[2] / "docs" / "jax.md")!r}, module_relative=False)
assert done.attempted > 10
sys.exit(done.failed)
"""
SHARDED = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from clearhead.adapters.jax import dot_product_attention
mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
q, k, v, d = (jax.numpy.asarray(rng.standard_normal((2, 4200, heads, 16)), np.float32) for heads in (4, 2, 2, 4))
lengths = np.array([4200, 2500])
rules = [
    {"is_causal": True},
    {"is_causal": True, "local_window_size": 100},
    {"is_causal": True, "query_seq_lengths": lengths, "key_value_seq_lengths": lengths},
]

def local(q, k, v, **rules):
    k, v = (jax.lax.all_gather(x, "rows", axis=1, tiled=True) for x in (k, v))
    first = jax.lax.axis_index("rows") * q.shape[1]
    return dot_product_attention(q, k, v, query_offset=first, **rules)

for rule in rules:
    sharded = jax.shard_map(
        lambda *x: local(*x, **rule), mesh=mesh, in_specs=P(None, "rows"), out_specs=P(None, "rows")
    )
    def both(attend):
        return jax.jit(jax.value_and_grad(lambda *x: ((y := attend(*x)) * d).sum(), (0, 1, 2)))
    whole = lambda *x: dot_product_attention(*x, **rule)
    assert np.asarray(jax.jit(sharded)(q, k, v)).tobytes() == np.asarray(jax.jit(whole)(q, k, v)).tobytes()
    lowered = both(sharded).lower(q, k, v).as_text()
    assert "clearhead" in lowered and "xi1>" not in lowered, "a table of booleans"
    (_, ours), (_, theirs) = both(sharded)(q, k, v), both(whole)(q, k, v)
    assert np.asarray(ours[0]).tobytes() == np.asarray(theirs[0]).tobytes()
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
"""


@pytest.mark.parametrize("program", [DOCUMENTED, SHARDED], ids=["documented", "sharded"])
def test_rows_sharded_over_two_devices(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=TWO_DEVICES)
    assert done.returncode == 0, done.stdout + done.stderr
