"""Causal attention of a whole prompt, float32 and float64, beside all peers."""

from collections.abc import Callable, Iterator

from bench import own
from bench.peers import flex, jax_nn, onnx_runtime, open_vino, pytorch
from bench.workload import Make, Promise, Workload, ahead, as_exact_as, faster_than, of_peak
from clearhead.arrays import Array
from clearhead.cli.bench import Shape, causal_exact, operands, operations, plain_numpy
from clearhead.cli.race import Contender

LONG: tuple[Shape, ...] = ((1, 8, 2048, 64), (1, 4, 4096, 64), (1, 1, 16384, 64), (1, 4, 4096, 128))
SHORT: tuple[Shape, ...] = (
    (1, 12, 128, 64), (8, 8, 256, 64), (1, 8, 512, 64), (1, 12, 197, 64), (1, 8, 1000, 64),
)  # fmt: skip
AVX2: tuple[Shape, ...] = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 4, 4096, 128))
DOUBLE: Shape = (1, 4, 2048, 64)
SMALL: Shape = (1, 2, 130, 16)  # of a quick run
MATRIX = 512 << 20  # bytes: whole matrices of scores larger than this are not made
LEAST_OF_PEAK = {(1, 12, 197, 64): 0.6}
CAUSES = {
    (1, 12, 128, 64): "short heads: transposing q, starting tiles and the diagonal's hidden pairs are a quarter of the "
    "work at 128 keys",
    (1, 12, 197, 64): "197 = 3 · 64 + 5 queries: the last tile works on 16 queries for 5",
}
NARROW = (
    "over dims 64 and 128: the multiply-adds run at 0.86 of the peak, and what a pair costs besides (exponential, "
    "sums) takes 0.24 of their time at dim 64, where with vectors of 512 bits and 32 registers it takes 0.07"
)
PEERS: dict[str, Callable[[Array, Array, Array], Contender]] = {
    "PyTorch SDPA": pytorch.sdpa,
    "PyTorch eager": pytorch.eager,
    "ONNX Runtime Attention": onnx_runtime.attention,
    "ONNX Runtime GroupQueryAttention": onnx_runtime.grouped_query,
    "ONNX Runtime MultiHeadAttention": onnx_runtime.multi_head,
    "OpenVINO": open_vino.sdpa,
    "JAX": jax_nn.attention,
    "numpy": lambda q, k, v: Contender(lambda: plain_numpy(q, k, v)),
}
MATRICES = ("PyTorch eager", "JAX", "numpy")  # make them


def workloads(*, quick: bool) -> Iterator[Workload]:
    """Each shape; FlexAttention, which compiles for half a minute, at one of them."""
    if quick:
        yield prefill(SMALL)
        return
    for shape in (*SHORT, *LONG):
        least = LEAST_OF_PEAK.get(shape, 0.85 if shape in LONG else 0.72)
        promises = (of_peak(least), faster_than("PyTorch SDPA", 2.5 if shape in LONG else 3.0))
        more = {"FlexAttention": flex.attention} if shape == LONG[0] else {}
        yield prefill(shape, promises=promises, more=more, memory=shape == (1, 4, 4096, 64))
    only = ("PyTorch SDPA", "PyTorch eager", "numpy")
    yield prefill(DOUBLE, promises=(of_peak(0.75),), dtype="float64", only=only)


def on_avx2(*, quick: bool) -> Iterator[Workload]:
    """The same with 256-bit vectors, PyTorch kept to them too; this process was started so."""
    for shape in (SMALL,) if quick else AVX2:
        promises = () if quick else (of_peak(0.8), faster_than("PyTorch SDPA", 1.4))
        yield prefill(shape, promises=promises, only=("PyTorch SDPA", "PyTorch eager"), narrow=True)


def prefill(
    shape: Shape,
    *,
    promises: tuple[Promise, ...] = (),
    dtype: str = "float32",
    only: tuple[str, ...] = tuple(PEERS),
    more: dict[str, Callable[[Array, Array, Array], Contender]] | None = None,
    narrow: bool = False,
    memory: bool = False,
) -> Workload:
    """One shape."""
    q, k, v = operands(shape, dtype)
    matrix = q.nbytes // q.shape[-1] * q.shape[-2]
    chosen = {name: PEERS[name] for name in only if matrix <= MATRIX or name not in MATRICES} | (more or {})
    peers: dict[str, Make] = {name: (lambda make=make: make(q, k, v)) for name, make in chosen.items()}
    return Workload(
        f"{'AVX2 ' if narrow else ''}{shape} {dtype}",
        lambda: causal_exact(q, k, v),
        {"clearhead": lambda: own.forward(q, k, v)},
        peers,
        operations=operations(shape),
        bytes=4 * q.nbytes,
        promises=(ahead(), *promises, *as_exact_as("PyTorch SDPA")),
        cause=NARROW if narrow else CAUSES.get(shape, ""),
        dtype=dtype,
        memory=memory,
    )
