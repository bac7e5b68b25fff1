"""JAX's attention on clearhead's kernels: jax.nn's own numbers, under jit, vmap and grad."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from clearhead import DtypeError, InputError, ShapeError  # noqa: E402
from clearhead.adapters.jax import dot_product_attention, trampoline  # noqa: E402
from clearhead.adapters.jax import ffi as call  # noqa: E402
from clearhead.definition import textbook  # noqa: E402
from clearhead.rules import masks, scores  # noqa: E402

B, T, S, N, K, H = 2, 9, 9, 4, 2, 8
RNG = np.random.default_rng(0)


def operands(dtype=np.float32, s=S, key_heads=K):
    shapes = (B, T, N, H), (B, s, key_heads, H), (B, s, key_heads, H)
    return [jax.numpy.asarray(RNG.standard_normal(shape), dtype) for shape in shapes]


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3, "is_causal": True},
    "window": {"local_window_size": (3, 1)},
    "both sides": {"local_window_size": 2, "is_causal": True},
    "bias": {"bias": RNG.standard_normal((B, N, T, S)).astype(np.float32)},
    "shared bias": {"bias": RNG.standard_normal((1, N, T, S)).astype(np.float32), "is_causal": True},
    "mask": {"mask": (RNG.random((B, 1, T, S)) < 0.6) | np.eye(T, dtype=bool)},
    "lengths": {"key_value_seq_lengths": np.array([9, 4]), "query_seq_lengths": np.array([9, 6])},
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_jaxs_attention_with_its_gradients(name):
    q, k, v = operands()
    bias = CASES[name].get("bias")
    options = {key: x for key, x in CASES[name].items() if key != "bias"}
    d = RNG.standard_normal((B, T, N, H)).astype(np.float32)

    def value(attend, *, jitted):
        def loss(q, k, v, bias):
            return (attend(q, k, v, bias, **options) * d).sum()

        inputs = (0, 1, 2) if bias is None else (0, 1, 2, 3)
        both = jax.value_and_grad(loss, inputs)
        return (jax.jit(both) if jitted else both)(q, k, v, bias)

    theirs = value(jax.nn.dot_product_attention, jitted=True)
    for jitted in (False, True):
        ours = value(dot_product_attention, jitted=jitted)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None)])
def test_vmap(axes):
    q, k, v = operands()
    stacked = [jax.numpy.stack([x, 2 * x, -x]) if axis == 0 else x for x, axis in zip((q, k, v), axes, strict=True)]
    ours = jax.vmap(lambda *x: dot_product_attention(*x, is_causal=True), in_axes=axes)(*stacked)
    theirs = jax.vmap(lambda *x: jax.nn.dot_product_attention(*x, is_causal=True), in_axes=axes)(*stacked)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_bfloat16_and_other_lengths():
    q, k, v = operands(jax.numpy.bfloat16, s=13)
    ours = dot_product_attention(q, k, v)
    assert ours.dtype == jax.numpy.bfloat16
    theirs = jax.nn.dot_product_attention(*(x.astype(np.float32) for x in (q, k, v)))
    np.testing.assert_allclose(ours.astype(np.float32), theirs, rtol=1e-2, atol=1e-2)


WRONG = {
    "ranks": ({"query": np.zeros((3, 4))}, ShapeError, r"query has shape \(3, 4\): give \(batch, length, heads, dim"),
    "batches": ({"query": np.zeros((1, T, N, H))}, ShapeError, "batches differ"),
    "heads": ({"query": np.zeros((B, T, 3, H))}, ShapeError, "3 query heads cannot share 2 key heads"),
    "dims": ({"query": np.zeros((B, T, N, 5))}, ShapeError, "queries of dim 5 cannot be compared with keys of dim 8"),
    "values": ({"value": np.zeros((B, 3, K, H))}, ShapeError, "9 keys do not match 3 values"),
    "value heads": ({"value": np.zeros((B, S, 1, H))}, ShapeError, "2 key heads do not match 1 value heads"),
    "integers": ({"query": np.zeros((B, T, N, H), int)}, DtypeError, "q has dtype int"),
    "complex": ({"query": np.zeros((B, T, N, H), complex)}, DtypeError, "q has dtype complex"),
    "mask": ({"mask": np.zeros((3, T, S), bool)}, ShapeError, r"mask of shape \(3, 9, 9\) does not broadcast"),
    "mask of floats": ({"mask": np.zeros((T, S))}, DtypeError, "mask has dtype float32: give booleans"),
    "bias": ({"bias": np.zeros((3, 1, T, S))}, ShapeError, r"bias of shape \(3, 1, 9, 9\) does not broadcast"),
    "bias of booleans": ({"bias": np.zeros((T, S), bool)}, DtypeError, "bias has dtype bool"),
    "one length": ({"key_value_seq_lengths": 3}, ShapeError, r"key_value_seq_lengths has shape \(\)"),
    "lengths of floats": ({"query_seq_lengths": [3.5, 4.0]}, DtypeError, "query_seq_lengths has dtype float32"),
    "window": ({"local_window_size": (1, -1)}, InputError, r"local_window_size=\(1, -1\) must be a window"),
    "half a window": ({"local_window_size": 1.5}, InputError, "local_window_size=1.5 must be a window"),
    "scale": ({"scale": float("nan")}, InputError, "scale=nan is not finite"),
    "words": ({"value": "x"}, InputError, "value is str: give an array of numbers"),
    "nothing": ({"query": None}, InputError, "query is NoneType: give an array of numbers"),
    "flag": ({"is_causal": np.ones(2)}, InputError, "is_causal is ndarray: give True or False"),
    "implementation": ({"implementation": "cudnn"}, InputError, "implementation='cudnn' is not available in clearhead"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_told_while_it_is_traced(name):
    given, error, words = WRONG[name]
    arguments = dict(zip(("query", "key", "value"), operands(), strict=True)) | given
    with pytest.raises(error, match=words):
        jax.jit(lambda: dot_product_attention(**arguments))()


def same(function, *arrays, tolerance=2e-4):
    ours, theirs = function(dot_product_attention, *arrays), function(jax.nn.dot_product_attention, *arrays)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_lists_and_numpys_numbers_are_arguments_too():
    q, k, v = operands()
    same(lambda f: f(q[0].tolist(), k[0].tolist(), v[0].tolist(), is_causal=np.bool_(True)))
    same(lambda f: f(q, k, v, key_value_seq_lengths=[9, 4], scale=np.float32(0.3), implementation="xla"))


TABLES = [((T, S), N), ((N, T, S), B), ((B, 1, 1, S), N), ((S,), B)]  # as many items as there are heads or sequences


@pytest.mark.parametrize(("shape", "items"), TABLES)
def test_tables_of_any_shape_under_vmap(shape, items):
    stacked = [jax.numpy.stack([(n + 1) * x for n in range(items)]) for x in operands()]
    bias = RNG.standard_normal((items, *shape)).astype(np.float32)
    mask = RNG.random((items, *shape)) < 0.6
    mask[..., 0] = True

    def loss(f):
        return jax.grad(lambda q, k, v, bias, mask: (f(q, k, v, bias, mask) ** 2).sum(), (0, 1, 2, 3))

    same(lambda f: jax.vmap(loss(f))(*stacked, bias, mask), tolerance=2e-3)
    same(lambda f: jax.vmap(loss(f), in_axes=(0, 0, 0, None, None))(*stacked, bias[0], mask[0]), tolerance=2e-3)


@pytest.mark.parametrize("shape", [(1, N, T, S), (1, 1, T, S), (T, S)])
def test_tables_of_sequences_without_a_batch(shape):
    stacked, one = operands(), [x[0] for x in operands()]
    bias, mask = RNG.standard_normal((B, *shape)).astype(np.float32), RNG.random((B, *shape)) < 0.6
    mask[..., 0] = True

    def loss(f):
        return jax.grad(lambda q, k, v, bias, mask: (f(q, k, v, bias, mask) ** 2).sum(), (0, 1, 2, 3))

    same(lambda f: loss(f)(*one, bias[0], mask[0]))
    same(lambda f: jax.vmap(loss(f))(*stacked, bias, mask))


def test_rules_of_tables_are_traced_once(monkeypatch):
    def attend():
        bias, mask = RNG.standard_normal((1, N, T, S)).astype(np.float32), np.ones((B, 1, T, S), bool)
        lengths = {"query_seq_lengths": [9, 6], "key_value_seq_lengths": [9, 4]}
        return dot_product_attention(*operands(), bias, mask, **lengths).block_until_ready()

    attend()
    for room in (masks, scores):
        monkeypatch.setattr(room, "trace", lambda *_: pytest.fail("a rule was traced anew"))
    attend()


def test_a_traced_scale_has_a_gradient():
    q, k, v = operands()
    same(lambda f: jax.jit(jax.grad(lambda q, s: (f(q, k, v, scale=s) ** 2).sum(), (0, 1)))(q, jax.numpy.float32(0.3)))


@pytest.mark.parametrize("batched", [True, False])
def test_the_residual_is_the_log_sum_exp_and_has_a_gradient(batched):
    q, k, v = operands() if batched else [x[0] for x in operands()]
    same(lambda f: f(q, k, v, is_causal=True, return_residual=True))

    def plain(q, k, v):
        wide = jax.numpy.repeat(k, N // K, -2)
        scores = jax.numpy.einsum("...tnh,...snh->...tns", q, wide) / np.sqrt(H)
        hidden = np.arange(T)[:, None, None] < np.arange(S)
        lse = jax.nn.logsumexp(jax.numpy.where(hidden, -np.inf, scores), -1)
        return jax.nn.dot_product_attention(q, k, v, is_causal=True), lse

    def ours(q, k, v):
        return dot_product_attention(q, k, v, is_causal=True, return_residual=True)

    def loss(f):
        return jax.grad(lambda *x: sum((part**2).sum() for part in f(*x)), (0, 1, 2))(q, k, v)

    for a, b in zip(loss(ours), loss(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


def test_no_keys_or_no_queries():
    for queries, keys in ((5, 0), (0, 5), (0, 0)):
        q, k = jax.numpy.ones((2, queries, 4, 8)), jax.numpy.ones((2, keys, 2, 8))
        both = jax.value_and_grad(lambda q, k, v: dot_product_attention(q, k, v, is_causal=True).sum(), (0, 1, 2))
        value, gradients = jax.jit(both)(q, k, k)
        assert value == 0
        assert [(x.shape, float(abs(x).sum())) for x in gradients] == [(x.shape, 0) for x in (q, k, k)]


MAPPED = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from clearhead.adapters.jax import dot_product_attention
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 8))
bias = jax.random.normal(jax.random.key(1), (1, 4, 5, 5))

def mapped(function, out=P("x")):
    return jax.shard_map(function, mesh=mesh, in_specs=(P("x"), P("x"), P("x"), P()), out_specs=out)

def losses(attend):
    def again(q, k, v, bias):
        return jax.lax.scan(lambda q, _: (attend(q, k, v, bias), None), q, None, length=2)[0]
    def loss(*x):
        return sum((mapped(f)(*x) ** 2).sum() for f in (attend, again))
    return jax.jit(jax.grad(loss, (0, 1, 2, 3)))(q, k, v, bias)

for a, b in zip(losses(dot_product_attention), losses(jax.nn.dot_product_attention), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
try:
    jax.jit(mapped(dot_product_attention, P()))(q, k, v, bias)
except ValueError as error:
    assert "replicat" in str(error)
else:
    raise SystemExit("what differs between devices passed for the same")
"""


def test_shard_map_knows_what_differs_between_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr


def test_operands_are_read_and_results_written_in_place(monkeypatch):
    seen = []
    real = call.functions["attended"]

    def watched(options, operands, results):
        seen.append([x.ctypes.data for x in (*operands, *results)])
        real(options, operands, results)

    monkeypatch.setitem(call.functions, "attended", watched)
    q, k, v = operands()
    output = jax.jit(dot_product_attention)(q, k, v).block_until_ready()
    assert seen == [[x.unsafe_buffer_pointer() for x in (q, k, v, output)]]


def test_gradients_of_a_batch_under_jit():
    stacked = [jax.numpy.stack([x, 2 * x, -x]) for x in operands()]

    def each(attend):
        loss = jax.grad(lambda q, k, v: (attend(q, k, v, is_causal=True) ** 2).sum(), (0, 1, 2))
        return jax.jit(jax.vmap(loss))(*stacked)

    for a, b in zip(each(dot_product_attention), each(jax.nn.dot_product_attention), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("dtype", [np.float16, jax.numpy.bfloat16])
def test_narrow_gradients_start_from_the_output_before_it_was_rounded(dtype):
    q, k, v = (4 * x for x in operands(dtype))
    loss = jax.grad(lambda q, k, v, f: f(q, k, v, is_causal=True).astype(np.float32).sum(), (0, 1, 2))
    ours = loss(q, k, v, dot_product_attention)
    wide = loss(*(x.astype(np.float32) for x in (q, k, v)), jax.nn.dot_product_attention)
    for a, b in zip(ours, wide, strict=True):
        assert a.dtype == dtype
        unit = float(jax.numpy.finfo(dtype).eps)
        np.testing.assert_allclose(a.astype(np.float32), b, rtol=unit, atol=unit * 0.02)


def test_float64_where_jax_has_it():
    with jax.enable_x64(True):
        q, k, v = operands(np.float64)
        assert q.dtype == np.float64
        got = dot_product_attention(q, k, v, is_causal=True)  # jax.nn's own softmax has float32's digits here
        want = textbook.attention(*(np.asarray(x).swapaxes(1, 2) for x in (q, k, v))).swapaxes(1, 2)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_no_items():
    for shape in ((0, 5, 2, 4), (1, 0, 2, 4)):
        x = jax.numpy.zeros(shape)
        assert jax.jit(dot_product_attention)(x, x, x).shape == shape
        assert jax.grad(lambda x: dot_product_attention(x, x, x).sum())(x).shape == shape


def test_an_error_inside_reaches_the_caller_and_the_next_call_works(monkeypatch):
    def broken(*_):
        raise ShapeError("no such shape")

    q, k, v = operands()
    with monkeypatch.context() as patched:
        patched.setitem(call.functions, "attended", broken)
        with pytest.raises(Exception, match="INVALID_ARGUMENT: ShapeError: no such shape"):
            jax.jit(dot_product_attention)(q, k, v).block_until_ready()
    assert np.isfinite(dot_product_attention(q, k, v)).all()


def test_many_threads_at_once():
    q, k, v = operands()
    attend = jax.jit(lambda q: dot_product_attention(q, k, v))
    wanted = [np.asarray(attend(n * q)) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for got, want in zip(pool.map(lambda n: np.asarray(attend(n * q)), range(8)), wanted, strict=True):
                np.testing.assert_array_equal(got, want)


def test_an_interrupt_inside_a_call_reaches_the_main_thread(monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(call.functions, "attended", pressed)
    attend = jax.jit(dot_product_attention)

    def until_it_comes():
        try:
            attend(*operands()).block_until_ready()
        except (jax.errors.JaxRuntimeError, ValueError):  # as the call was inline, or not
            return sum(range(10))

    with pytest.raises(KeyboardInterrupt):
        [until_it_comes() for _ in range(10)]


INTERRUPTED = """
import signal, jax, numpy as np
from clearhead.adapters.jax import dot_product_attention
attend = jax.jit(lambda q: dot_product_attention(q, q, q))
xs = [np.full((1, 8, 1, 8), n, np.float32) for n in range(5)]
attend(xs[0])
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
for press in range(200):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        while True:
            try:
                got = np.asarray(attend(xs[press % 5]))
            except Exception as error:
                assert "left the call" in str(error), error
                continue
            assert (got == press % 5).all(), (press, got)
    except KeyboardInterrupt:
        pass
"""
PENDING = """
import jax
from clearhead.adapters.jax import dot_product_attention
attend = jax.jit(lambda q: dot_product_attention(q, q, q))
q = jax.numpy.ones((1, 3000, 4, 64))
attend(q).block_until_ready()
pending = attend(attend(2 * q))
"""


@pytest.mark.parametrize("program", [INTERRUPTED, PENDING], ids=["interrupted", "pending"])
def test_programs_that_are_interrupted_or_end_meanwhile(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_xla_may_ask_about_the_handler_without_its_interface():
    metadata = call.Metadata(ctypes.sizeof(call.Metadata))
    extension = call.Extension(ctypes.sizeof(call.Extension), call.METADATA, None, ctypes.addressof(metadata))
    frame = call.Frame(ctypes.sizeof(call.Frame), ctypes.addressof(extension))
    assert call.handle(ctypes.addressof(frame)) == trampoline.DONE
    assert (metadata.version.major, metadata.version.minor) == call.VERSION
