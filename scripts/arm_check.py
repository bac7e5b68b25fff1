"""Run the kernels' AArch64 code under qemu and compare it with this machine's.

For each problem the AArch64 object is compiled by LLVM, linked with scripts/arm_harness.c by Debian's cross compiler,
and run by qemu-aarch64 on the same table and arrays. Exit status 1 if a single bit of an output or log-sum-exp differs,
or a gradient by more than its rounding: sums over queries have an order of their own for each vector width.
"""

import ctypes
import functools
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from clearhead import alibi, attend, causal, dense, documents, full, functions, problem, softcap, where, window
from clearhead.definition.gradient import reduced
from clearhead.engine.launch import launch_on, spec_for
from clearhead.gradients.backward import keys_lead, share, walked_strides
from clearhead.gradients.launch import BackwardLaunch, float_arrays
from clearhead.kernels.abi.call import AXIS, FIELDS
from clearhead.kernels.abi.gradient_call import AXIS as GRADIENT_AXIS
from clearhead.kernels.abi.gradient_call import DONE
from clearhead.kernels.abi.gradient_call import FIELDS as GRADIENT_FIELDS
from clearhead.kernels.abi.tiles import padded
from clearhead.machine.compile import Kernel, KernelSpec, emit
from clearhead.machine.target import AARCH64
from clearhead.testing import check_same_bits

HERE = Path(__file__).parent
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
BUDGETS = (1 << 62, 1000)  # all at once, and in slices


def random(*shape, dtype, seed=0):
    """Numbers that depend on shape and seed alone."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


SLOPES = np.array([0.3, -0.1])


def curved(score, batch, head, query, key):
    """A rule that uses every function."""
    return np.where(score > 0, np.log(1 + np.exp(score)), functions.sigmoid(score)) + SLOPES[head] * (key - query)


def problems():
    """Names, arrays and rules."""
    for dtype in (np.float32, np.float64):
        make = functools.partial(random, dtype=dtype)
        for n in (1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 197, 300):
            for d in (64, 17):
                yield f"causal {n} × {d}", (make(2, n, d), make(2, n, d, seed=1), make(2, n, d, seed=2)), {}
        for m in (1, 7, 16, 129, 2047, 2048, 2049, 4100):
            q, k, v = make(4, 3, 32), make(2, m, 32), make(2, m, 16)
            yield f"decode 3 of {m}", (q, k, v), {"mask": causal(align="end")}
            yield f"full 70 of {m}", (make(2, 70, 5), make(2, m, 5), make(2, m, 3)), {"mask": full()}
        for dim in (1, 2, 3, 15, 16, 33, 100, 512):
            yield f"dim {dim}", (make(2, 70, dim), make(1, 70, dim), make(1, 70, dim, seed=3)), {}
        wide = make(2, 150, 40)
        yield "turned, strided", (wide[:, ::-1, ::2], wide[::-1, :, 1::2], wide[:, ::-1, :20]), {}
        x = make(2, 140, 20)
        spoilt = x.copy()
        spoilt[:, -9:] = np.array([np.nan, np.inf, -np.inf])[np.arange(9) % 3][:, None]
        yield "hidden NaN and infinity", (x[:, :130], spoilt, spoilt), {"mask": causal(align="start")}
        for size, name in ((1e15, "huge"), (np.finfo(dtype).smallest_subnormal * 50, "subnormal"), (0, "zero")):
            yield name, tuple((x * size).astype(dtype) for _ in range(3)), {}
        yield "window", (x, x, x), {"mask": window(30)}
        yield "documents", (x, x, x), {"mask": documents([3, 100, 37]) & causal()}
        yield "dense mask", (x, x, x), {"mask": dense(make(2, 140, 140) > 0)}
        yield "mask function", (x, x, x), {"mask": where(lambda b, h, q, k: (k + q // 3) % 4 != h)}
        yield "softcap", (x, x, x), {"score": softcap(1.5)}
        yield "ALiBi and sink", (x, x, x), {"score": alibi(2), "sink": make(2)}
        yield "function", (x, x, x), {"score": curved}
    for name in ("float16",):
        x = random(2, 140, 20, dtype=np.float32).astype(name)
        yield name, (x, x[:, ::-1], x[..., ::-1]), {}


@functools.cache
def executable(spec, folder):
    """The plan's AArch64 code with the harness, ready to run."""
    base = Path(folder) / spec.key
    base.with_suffix(".o").write_bytes(emit(spec))
    command = [COMPILER, "-O1", "-static", f"-DKERNEL={spec.kernel}", HERE / "arm_harness.c", base.with_suffix(".o")]
    subprocess.run([*command, "-o", base, "-lm"], check=True)  # noqa: S603
    return base


def run(arrays, rules, budget, folder):
    """Output and log-sum-exp of AArch64's code."""
    q, k, v = arrays
    sink = rules.get("sink")
    asked = problem(q, k, v, **{"mask": causal(), **rules})
    spec = spec_for(asked, AARCH64)
    ready = launch_on(Kernel(spec, None, ()), asked, ())
    output = np.zeros(ready.output_shape, q.dtype)
    lse = np.zeros(ready.output_shape[:-1], ready.lse_dtype)
    named = {"query": q, "key": k, "value": v, "output": output, "lse": lse}
    if sink is not None:
        named["sink"] = np.ascontiguousarray(np.broadcast_to(sink, ready.output_shape[:-2]), ready.lse_dtype)
    if ready.counters:
        named |= {"workspace": np.zeros(ready.workspace, np.uint8), "counters": np.zeros(ready.counters, np.int64)}
    tile_table, kinds, *captured = ready.held
    named |= {name: x for name, x in (("tile_table", tile_table), ("blocks", kinds)) if x is not None}
    table = list(struct.unpack(f"{len(ready.template) // 8}q", ready.template))
    places = [(FIELDS.index(name), array) for name, array in named.items()]
    start = len(FIELDS) + len(AXIS) * table[FIELDS.index("axes")]
    places += [(start + spec.variant.at_array(n), array) for n, array in enumerate(captured)]
    data = emulated(spec, table, places, -1, (ready.scratch_size, budget), (3, 4), folder)
    return (
        np.frombuffer(data, output.dtype, output.size).reshape(output.shape),
        np.frombuffer(data, lse.dtype, lse.size, output.nbytes).reshape(lse.shape),
    )


def emulated(spec, table, places, give_way, sizes, results, folder):
    """The bytes of some buffers after a run; `places` are (place in the table, array), numbered as buffers."""
    parts = [struct.pack(f"{1 + len(table)}q", len(table), *table), struct.pack("q", len(places))]
    addresses = []
    for buffer, (place, array) in enumerate(places):
        low, high = np.lib.array_utils.byte_bounds(array)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
        parts += [struct.pack("q", high - low), memory.tobytes()]
        addresses += [place, buffer, array.ctypes.data - low]
    parts.append(struct.pack(f"{1 + len(addresses)}q", len(places), *addresses))
    parts.append(struct.pack(f"{4 + len(results)}q", give_way, *sizes, len(results), *results))
    source, target = Path(folder) / "problem", Path(folder) / "results"
    source.write_bytes(b"".join(parts))
    subprocess.run([EMULATOR, executable(spec, folder), source, target], check=True)  # noqa: S603
    return target.read_bytes()


def gradients(done, d_out, budget, folder):
    """Gradients of queries, keys and values by AArch64's code, from this machine's output and log-sum-exp."""
    (q, k, v, _), asked = done.residuals.operands, done.residuals.problem
    arrays = asked.rules.score.arrays if asked.rules.score else ()
    planned = BackwardLaunch(asked, walked_strides(asked, d_out), float_arrays(arrays), share(asked, k, v))
    planned.__dict__["plan"] = KernelSpec("backward", spec_for(asked, AARCH64).tile, AARCH64, planned.variant)
    template = planned.template(1)
    tasks, computed = planned.chains * planned.group * len(planned.tiles), np.dtype(asked.computed)
    d_query = np.zeros((*asked.lead, asked.queries, asked.query_dim), planned.d_query_dtype)
    d_key, d_value = (
        np.zeros((*planned.key_axes, asked.keys, padded(dim)), computed) for dim in (asked.query_dim, asked.value_dim)
    )
    named = {"d_query": d_query, "d_key": d_key, "d_value": d_value}
    named |= {"query": q, "key": k, "value": v, "output": done.residuals.output, "lse": done.lse, "d_output": d_out}
    named |= {"progress": np.zeros(tasks, np.int64), "done": np.full(1, DONE, np.int64)}
    named["sums"] = np.zeros((tasks, max(1, len(planned.variant.contributions))), computed)
    tile_table, kinds, *captured = template.kept
    named |= {name: x for name, x in (("tile_table", tile_table), ("blocks", kinds)) if x is not None}
    table = list(template.numbers)
    places = [(GRADIENT_FIELDS.index(name), array) for name, array in named.items()]
    start = len(GRADIENT_FIELDS) + len(GRADIENT_AXIS) * table[GRADIENT_FIELDS.index("axes")]
    places += [(start + planned.variant.at_array(n), array) for n, array in enumerate(captured)]
    found = [np.zeros(arrays[n].shape, computed) for n in planned.scattered]
    places += list(zip(template.scattered, found, strict=True))
    sizes = planned.scratch_layout[1], budget
    data = emulated(planned.spec, table, places, GRADIENT_FIELDS.index("give_way"), sizes, (0, 1, 2), folder)
    at, results = 0, []
    for array in (d_query, d_key, d_value):
        results.append(np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape))
        at += array.nbytes
    lead = keys_lead(planned)
    shapes = [(x, (*lead, *x.shape[-2:])) for x in results[1:]]
    d_key, d_value = (
        reduced(x.reshape(shape)[..., : y.shape[-1]], y.shape) for (x, shape), y in zip(shapes, (k, v), strict=True)
    )
    return reduced(results[0], q.shape), d_key, d_value


def near(got, want, letter, arrays, d_out):
    """Two ways to add up the same gradient differ by rounding alone; what is not a number must be so in both.

    Gradients of q and k are sums of differences dP − δ, which may cancel: those differences' size counts, too.
    """
    dtype = arrays[0].dtype
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    terms = {"q": (d_out, *arrays[1:]), "k": (d_out, arrays[0], arrays[2]), "v": ()}[letter]
    differences = np.prod([largest(x) for x in terms]) if terms else 0
    unit = 1e-3 if dtype == np.float16 else 64 * np.finfo(dtype).eps
    finite = np.isfinite(want)
    size = max(largest(want), differences)
    return (finite == np.isfinite(got)).all() and (np.abs(got - want)[finite] <= unit * size).all()


def largest(x):
    """The size of the largest finite number."""
    wide = np.abs(np.asarray(x, np.float64))
    return wide[np.isfinite(wide)].max(initial=0)


def main():
    """All problems; the number of bits that agree, or what differs."""
    compared, summed, failed, count = 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, arrays, rules in problems():
            here = attend(*arrays, **rules, threads=1)
            for budget in BUDGETS:
                output, lse = run(arrays, rules, budget, folder)
                label = f"{arrays[0].dtype} {name}"
                try:
                    check_same_bits(output, here.output, "outputs")
                    check_same_bits(lse, here.lse, "log-sum-exps")
                except AssertionError as error:
                    failed += 1
                    print(f"{label}: {error}", flush=True)
                compared += 8 * (output.nbytes + lse.nbytes)
                count += 1
            d_out = random(*here.output.shape, dtype=np.float32, seed=9).astype(arrays[0].dtype)
            own = here.backward(d_out)
            for budget in BUDGETS:
                for letter, x in zip("qkv", gradients(here, d_out, budget, folder), strict=True):
                    if not near(x, getattr(own, letter), letter, arrays, d_out):
                        failed += 1
                        print(f"{arrays[0].dtype} {name}: gradients of {letter} differ", flush=True)
                    summed += x.size
                count += 1
    kernels = executable.cache_info().currsize
    numbers = f"{compared:,} bits and {summed:,} gradients"
    print(f"{count} runs of {kernels} kernels under {EMULATOR}: {numbers}, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
