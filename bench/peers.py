"""clearhead beside its peers: one process, one core, in turns, and every answer compared before it is timed.

    python bench/peers.py [--only rules prefill decode] [--seconds 8]

Rules at (1, 8, 2048, 64) against compiled FlexAttention; causal prefill and decoding of one query over 32768 keys
against PyTorch, ONNX Runtime, OpenVINO and JAX. What is not installed or refuses a case is said in a line. Each peer
gets its operands in the layout it likes, prepared beforehand. Before each run of a decode other memory is read, so that
keys and values come from memory and not from a cache; `torch.dot` over as many bytes, in the same turns, is what memory
gives.
"""

import argparse
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before any import that counts cores to make its threads
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np

from clearhead import KeyValueCache, alibi, attention, causal, documents, full, problem, softcap, window

Array = np.ndarray
RNG = np.random.default_rng(0)
CLOSE = 1e-4
DIM = 64
PEERS = ("torch", "onnxruntime", "openvino", "jax")
LARGER_THAN_CACHES = 64 << 20  # bytes read before each run of a decode


@dataclass(frozen=True)
class Contender:
    """A call, and how to read what it gives as (heads, queries, dim)."""

    name: str
    call: Callable[[], Any]
    read: Callable[[Any], Array]


@dataclass(frozen=True)
class Contest:
    """One question put to all: `work` is its operations or bytes; the peers are made one by one, as some may fail."""

    what: str
    work: float
    unit: str
    ours: list[Contender]
    peers: dict[str, Callable[[], Contender]]
    cold: bool = False


def main() -> None:
    """Measure the parts asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=8.0, help="for each row's turns")
    options = parser.parse_args()
    print(" ".join(f"{name} {version(name)}" for name in ("clearhead", "numpy", *PEERS)))
    print("\n| what | who | ms | rate | clearhead's advantage |\n|---|---|---|---|---|")
    for part in options.only:
        for contest in PARTS[part]():
            hold(contest, options.seconds)


def version(name: str) -> str:
    """A package's version, or that it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def hold(contest: Contest, seconds: float) -> None:
    """Check, time and print one contest."""
    first = contest.ours[0]
    want = first.read(first.call())
    contenders, missing = list(contest.ours), []
    for name, build in contest.peers.items():
        try:
            contenders.append(checked(build(), want))
        except Exception as error:  # whatever a peer may raise: it is told, and the others go on
            missing.append(f"missing: {name}: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}")
    best = race(contenders, seconds, contest.cold)
    for contender in contenders:
        spent = best[contender.name]
        advantage = " / ".join(f"{spent / best[own.name]:.2f}" for own in contest.ours)
        rate = f"{contest.work / spent / 1e9:.1f} {contest.unit}"
        if contest.cold:
            rate += f", {best['memory'] / spent:.2f} of memory's"
        print(f"| {contest.what} | {contender.name} | {1e3 * spent:.2f} | {rate} | {advantage} |", flush=True)
    for line in missing:
        print(f"| {contest.what} | {line} | | | |", flush=True)


def checked(contender: Contender, want: Array) -> Contender:
    """The contender, if its answer is right; what only reads memory has none."""
    got = contender.read(contender.call())
    error = float(np.abs(got - want).max()) if got.size else 0.0
    if not error <= CLOSE:
        raise ArithmeticError(f"its answer is off by {error:.1e}")
    return contender


def race(contenders: Sequence[Contender], seconds: float, cold: bool) -> dict[str, float]:
    """Each contender's least time over rounds in turns, forwards and backwards."""
    best = {contender.name: 1e9 for contender in contenders}
    other = np.ones(LARGER_THAN_CACHES // 4, np.float32)
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 4 or time.perf_counter() < end:
        for contender in contenders if rounds % 2 else reversed(contenders):
            for _ in range(1 if cold else 2):
                if cold:
                    np.dot(other, other)
                start = time.perf_counter()
                contender.call()
                best[contender.name] = min(best[contender.name], time.perf_counter() - start)
        rounds += 1
    return best


def normal(*shape: int) -> Array:
    """Standard normal float32."""
    return RNG.standard_normal(shape, np.float32)


def one(answer: Any) -> Array:
    """What lies as (1, heads, queries, dim)."""
    return np.asarray(answer)[0]


def by_position(answer: Any) -> Array:
    """What lies as (1, queries, heads, dim), or so with heads and dims as one axis."""
    answer = np.asarray(answer)
    return answer.reshape(*answer.shape[:2], -1, DIM)[0].swapaxes(0, 1)


def positions_first(x: Array, *, flat: bool = False) -> Array:
    """(1, heads, n, dim) as (1, n, heads, dim), or (1, n, heads · dim)."""
    turned = np.ascontiguousarray(x.swapaxes(1, 2))
    return turned.reshape(*turned.shape[:2], -1) if flat else turned


# Rules, against FlexAttention


def rules() -> Iterator[Contest]:
    """(1, 8, 2048, 64): each rule as a score_mod or BlockMask of compiled FlexAttention."""
    length = 2048
    q, k, v = (normal(1, 8, length, DIM) for _ in range(3))
    bias, sinks = np.linspace(0.001, 0.01, 8).astype(np.float32), normal(8)
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "softcap": {"score": softcap(30.0)},
        "ALiBi": {"score": alibi(8)},
        "sink": {"sink": sinks},
        "window 256": {"mask": window(255)},
        "documents 4 × 512": {"mask": documents([512] * 4) & causal()},
        "function": {"score": lambda s, b, h, q, k: s + bias[h] * (k - q)},
    }
    for name, some in cases.items():
        pairs = problem(q, k, v, mask=some.get("mask", causal())).pairs
        ours = Contender("clearhead", lambda some=some: attention(q, k, v, threads=1, **some), one)
        peer = {"FlexAttention": lambda name=name: flex(name, q, k, v, bias, sinks)}
        yield Contest(f"{name}, (1, 8, {length}, {DIM})", 4 * DIM * pairs, "GF/s", [ours], peer)


def flex(name: str, q: Array, k: Array, v: Array, bias: Array, sinks: Array) -> Contender:
    """FlexAttention under torch.compile with the rule of this name.

    On a CPU it gives no log-sum-exp, so a sink is a key of its own: the last, with a value of 0.
    """
    torch = one_threaded_torch()
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    length = q.shape[2]
    slopes, slope, sink = (torch.from_numpy(x) for x in (np.float32(alibi(8).slopes), bias, sinks))
    scores = {
        "softcap": lambda s, b, h, i, j: 30.0 * torch.tanh(s / 30.0),
        "ALiBi": lambda s, b, h, i, j: s + slopes[h] * (j - i),
        "function": lambda s, b, h, i, j: s + slope[h] * (j - i),
        "sink": lambda s, b, h, i, j: torch.where(j == length, sink[h], s),
    }
    masks = {
        "window 256": lambda b, h, i, j: (j <= i) & (i - j < 256),
        "documents 4 × 512": lambda b, h, i, j: (j <= i) & (i // 512 == j // 512),
        "sink": lambda b, h, i, j: (j <= i) | (j == length),
    }
    if name == "sink":
        k, v = (np.concatenate([x, np.zeros_like(x[:, :, :1])], 2) for x in (k, v))
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    seen = create_block_mask(masks.get(name, lambda b, h, i, j: j <= i), None, None, length, k.shape[2], device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)

    def call() -> Any:
        with torch.no_grad():
            return compiled(*tensors, score_mod=scores.get(name), block_mask=seen)

    return Contender("FlexAttention", call, one)


# Causal attention of a whole prompt


def prefill() -> Iterator[Contest]:
    """Causal attention of all positions to all before."""
    for shape in ((1, 8, 2048, DIM), (1, 4, 4096, DIM)):
        q, k, v = (normal(*shape) for _ in range(3))
        ours = Contender("clearhead", lambda q=q, k=k, v=v: attention(q, k, v, threads=1), one)
        peers = {
            "torch SDPA": lambda *x: torch_sdpa(*x, causal=True),
            "onnxruntime GQA": onnx_gqa,
            "onnxruntime MHA": onnx_mha,
            "onnxruntime Attention": onnx_attention,
            "OpenVINO": lambda *x: openvino_sdpa(*x, causal=True),
            "JAX": lambda *x: jax_attention(*x, causal=True),
        }
        made = {name: (lambda build=build, q=q, k=k, v=v: build(q, k, v)) for name, build in peers.items()}
        pairs = problem(q, k, v, mask=causal()).pairs
        yield Contest(f"prefill {shape}", 4 * DIM * pairs, "GF/s", [ours], made)


# One query over many keys


def decode() -> Iterator[Contest]:
    """One query of 8 heads over 32768 keys of 8 and of 2 heads."""
    for key_heads in (8, 2):
        q = normal(1, 8, 1, DIM)
        k, v = (normal(1, key_heads, 32768, DIM) for _ in range(2))
        cache = KeyValueCache()
        cache.append(k, v)
        ours = [
            Contender("clearhead, cache", lambda q=q, cache=cache: attention(q, cache, threads=1), one),
            Contender("clearhead, arrays", lambda q=q, k=k, v=v: attention(q, k, v, mask=full(), threads=1), one),
        ]
        peers = {
            "memory": lambda q, k, v: memory(k, v),
            "torch SDPA": torch_sdpa,
            "onnxruntime GQA": onnx_gqa,
            "OpenVINO": openvino_sdpa,
            "JAX": jax_attention,
        }
        made = {name: (lambda build=build, q=q, k=k, v=v: build(q, k, v)) for name, build in peers.items()}
        yield Contest(f"decode 8:{key_heads} × 32768", k.nbytes + v.nbytes, "GB/s", ours, made, cold=True)


def memory(k: Array, v: Array) -> Contender:
    """Reading as many bytes: the dot product of all keys and all values."""
    torch = one_threaded_torch()
    a, b = (torch.from_numpy(x.reshape(-1)) for x in (k, v))
    return Contender("memory", lambda: torch.dot(a, b), lambda _: np.empty(0))


# The peers' own calls


def one_threaded_torch() -> Any:
    """PyTorch on one thread."""
    import torch

    torch.set_num_threads(1)
    return torch


def torch_sdpa(q: Array, k: Array, v: Array, causal: bool = False) -> Contender:
    """scaled_dot_product_attention."""
    torch = one_threaded_torch()
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    attend, grouped = torch.nn.functional.scaled_dot_product_attention, q.shape[1] != k.shape[1]

    def call() -> Any:
        with torch.no_grad():
            return attend(*tensors, is_causal=causal, enable_gqa=grouped)

    return Contender("torch SDPA", call, one)


def onnx_session(node: Any, inputs: dict[str, Array], outputs: dict[str, tuple[int, ...]]) -> Any:
    """An ONNX Runtime session of one node on one thread that never spins."""
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(name, kinds[x.dtype], x.shape) for name, x in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    versions = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=11)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnx_bound(
    name: str,
    node: Any,
    inputs: dict[str, Array],
    output: Array,
    read: Callable[[Any], Array],
    shared: Sequence[str] = (),
) -> Contender:
    """A contender whose inputs and output stay where they are; outputs `new_x` share the memory of inputs `x`."""
    from onnxruntime import OrtValue

    shapes = {"out": output.shape} | {f"new_{x}": inputs[x].shape for x in shared}
    session = onnx_session(node, inputs, shapes)
    values = {x: OrtValue.ortvalue_from_numpy(array) for x, array in inputs.items()}
    result, binding = OrtValue.ortvalue_from_numpy(output), session.io_binding()
    for x, value in values.items():
        binding.bind_ortvalue_input(x, value)
    binding.bind_ortvalue_output("out", result)
    for x in shared:
        binding.bind_ortvalue_output(f"new_{x}", values[x])

    def call() -> Any:
        session.run_with_iobinding(binding)
        return result

    return Contender(name, call, lambda answer: read(answer.numpy()))


def onnx_gqa(q: Array, k: Array, v: Array) -> Contender:
    """com.microsoft GroupQueryAttention; what is past and what is present share one buffer of keys and of values."""
    from onnx import helper

    queries, keys = q.shape[2], k.shape[2]
    inputs = {
        "q": positions_first(q, flat=True),
        "k": positions_first(k[:, :, -queries:], flat=True),
        "v": positions_first(v[:, :, -queries:], flat=True),
        "keys": k.copy(),
        "values": v.copy(),
        "last": np.array([keys - 1], np.int32),
        "total": np.array([keys], np.int32),
    }
    node = helper.make_node(
        "GroupQueryAttention", list(inputs), ["out", "new_keys", "new_values"], domain="com.microsoft",
        num_heads=q.shape[1], kv_num_heads=k.shape[1],
    )  # fmt: skip
    output = np.zeros_like(inputs["q"])
    return onnx_bound("onnxruntime GQA", node, inputs, output, by_position, shared=("keys", "values"))


def onnx_mha(q: Array, k: Array, v: Array) -> Contender:
    """com.microsoft MultiHeadAttention, causal."""
    from onnx import helper

    inputs = {name: positions_first(x, flat=True) for name, x in zip("qkv", (q, k, v), strict=True)}
    node = helper.make_node(
        "MultiHeadAttention", list(inputs), ["out"], domain="com.microsoft", num_heads=q.shape[1], unidirectional=1
    )
    return onnx_bound("onnxruntime MHA", node, inputs, np.zeros_like(inputs["q"]), by_position)


def onnx_attention(q: Array, k: Array, v: Array) -> Contender:
    """ONNX's own Attention, causal."""
    from onnx import helper

    inputs = dict(zip("qkv", (q, k, v), strict=True))
    node = helper.make_node("Attention", list(inputs), ["out"], is_causal=1)
    return onnx_bound("onnxruntime Attention", node, inputs, np.zeros_like(q), one)


def openvino_sdpa(q: Array, k: Array, v: Array, causal: bool = False) -> Contender:
    """OpenVINO's scaled_dot_product_attention, which wants as many key heads as query heads."""
    import openvino
    from openvino import opset13

    if k.shape[1] != q.shape[1]:
        raise ValueError("its scaled_dot_product_attention shares no key heads")
    operands = [opset13.parameter(x.shape, np.float32) for x in (q, k, v)]
    model = openvino.Model([opset13.scaled_dot_product_attention(*operands, causal=causal)], operands)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    for n, x in enumerate((q, k, v)):
        request.set_input_tensor(n, openvino.Tensor(x, shared_memory=True))

    def call() -> Any:
        request.infer()
        return request.get_output_tensor(0)

    return Contender("OpenVINO", call, lambda answer: one(answer.data))


def jax_attention(q: Array, k: Array, v: Array, causal: bool = False) -> Contender:
    """jax.nn.dot_product_attention under jit."""
    import jax

    arrays = [jax.numpy.asarray(positions_first(x)) for x in (q, k, v)]
    attend = jax.jit(lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal))
    return Contender("JAX", lambda: attend(*arrays).block_until_ready(), by_position)


PARTS = {part.__name__: part for part in (rules, prefill, decode)}

if __name__ == "__main__":
    main()
