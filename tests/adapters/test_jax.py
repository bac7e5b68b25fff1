"""JAX's attention on clearhead's kernels: jax.nn's own numbers, under jit, vmap and grad."""

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from clearhead import ShapeError  # noqa: E402
from clearhead.adapters.jax import call, dot_product_attention  # noqa: E402
from clearhead.definition import textbook  # noqa: E402

B, T, S, N, K, H = 2, 9, 9, 4, 2, 8
RNG = np.random.default_rng(0)


def operands(dtype=np.float32, s=S, key_heads=K):
    shapes = (B, T, N, H), (B, s, key_heads, H), (B, s, key_heads, H)
    return [jax.numpy.asarray(RNG.standard_normal(shape), dtype) for shape in shapes]


CASES = {
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
@pytest.mark.parametrize("jitted", [False, True])
def test_it_is_jaxs_attention_with_its_gradients(name, jitted):
    q, k, v = operands()
    bias = CASES[name].get("bias")
    options = {key: x for key, x in CASES[name].items() if key != "bias"}
    d = RNG.standard_normal((B, T, N, H)).astype(np.float32)

    def value(attend):
        def loss(q, k, v, bias):
            return (attend(q, k, v, bias, **options) * d).sum()

        inputs = (0, 1, 2) if bias is None else (0, 1, 2, 3)
        both = jax.value_and_grad(loss, inputs)
        return (jax.jit(both) if jitted else both)(q, k, v, bias)

    ours, theirs = value(dot_product_attention), value(jax.nn.dot_product_attention)
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


def test_what_does_not_fit_is_told():
    with pytest.raises(ShapeError, match="length, heads, dim"):
        dot_product_attention(np.zeros((3, 4)), np.zeros((3, 4)), np.zeros((3, 4)))


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


def test_an_error_inside_reaches_the_caller_and_the_next_call_works():
    q, k, v = operands()
    with pytest.raises(Exception, match="INVALID_ARGUMENT: ShapeError: 3 key heads do not match 2 value heads"):
        jax.jit(dot_product_attention)(q, k[:, :, :1].repeat(3, 2), v).block_until_ready()
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
    assert call.handle(ctypes.addressof(frame)) == call.DONE
    assert (metadata.version.major, metadata.version.minor) == call.VERSION
