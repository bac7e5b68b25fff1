"""Files that are damaged or made up: every reader gives what was written or an error that names the file.

Each case writes a good file (.npy, .npz, .safetensors, a saved cache, a saved watch, an entry of the kernel cache, a
table of vectors, word vectors, a layer's matrices), damages it (bytes changed, cut out, doubled, cut off; numbers of
its header replaced; arrays exchanged) or makes one of random parts, and reads it in a process whose memory is bounded.
"""

import json
import os
import struct
import tempfile
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import clearhead
from clearhead import KeyValueCache
from clearhead.errors import ClearheadError
from clearhead.explain.matrices import read_matrices
from clearhead.explain.vectors import read_vectors
from clearhead.files import open_arrays
from clearhead.machine import store
from clearhead.words.embeddings import read_embeddings
from tests.watched.written import record
from tests.watched.written import watch as watch_of

BOUND = 1 << 32  # bytes of address space more than a process has
SECONDS = 30
CODE = b"code" * 50
NUMBERS = [b"0", b"-1", b"1", b"7", b"65536", b"4294967296", b"9223372036854775807", b"1e9", b"99999999999999999999"]
DTYPES = ["<f4", "<f8", ">f8", "<f2", "<i8", "|b1", "<c16", "|O", "<U3", "|V9", "<M8[s]"]


def check(seed: int) -> None:
    """One case, read in a child of its own."""
    with tempfile.TemporaryDirectory(prefix="clearhead-fuzz-") as folder:
        rng = np.random.default_rng(seed)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        path = kind(rng, Path(folder))
        child = os.fork()
        if child == 0:
            os._exit(outcome(kind, path))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise AssertionError(f"{kind.__name__}: exit code {code}")


def describe(seed: int) -> str:
    """The kind of file."""
    return KINDS[int(np.random.default_rng(seed).integers(len(KINDS)))].__name__


def outcome(kind, path: Path) -> int:
    """0 if a file is read or refused as it should be."""
    import resource
    import signal
    import traceback

    signal.alarm(SECONDS)
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BOUND, size + BOUND))
    before = path.read_bytes()
    try:
        READERS[kind](path)
    except ClearheadError as error:
        if path.name in str(error) and "\n" not in str(error) and len(str(error)) < 1000:
            return 0 if kind is entry or path.read_bytes() == before else 1
        print(f"a message that does not help: {error}")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# Readers


def arrays(path: Path) -> None:
    """All arrays of a file, each number looked at."""
    file = open_arrays(path)
    for name in file.members:
        np.isnan(file[name]).any()


def decoded(path: Path) -> None:
    """A saved cache, used: what is accepted must be a cache."""
    cache = KeyValueCache.load(path)
    layout = cache.layout
    lead = (len(cache.lengths),) if cache.batched else ()
    if layout.heads * layout.key_dim < 1 << 20:
        q = np.ones((*lead, layout.heads, 1, layout.key_dim)).astype(layout.dtype)
        clearhead.attention(q, cache, threads=1)
        if len(set(cache.lengths)) == 1 and cache.lengths[0] < 1 << 20:
            clearhead.attend(q, cache, threads=1).weights[..., 0, :]
        step = [np.ones((*lead, layout.heads, 1, d)).astype(layout.dtype) for d in (layout.key_dim, layout.value_dim)]
        cache.append(*step)


def asked(path: Path) -> None:
    """A saved watch, asked: what is accepted must answer, or differ from the model's own output."""
    seen = clearhead.load_watch(path)
    trusted = True
    for run, own in enumerate(seen.runs):
        for (part, layer), kept in own.records.items():
            for sequence in range(kept.sequences):
                try:
                    with np.errstate(all="ignore"):
                        found = seen.layer(layer, sequence=sequence, run=run, part=part)
                        found.weights.summary("entropy")
                        found.values.sum()
                        found.head(found.heads[0]).step(0)
                except clearhead.TrustError:
                    trusted = False
                except clearhead.InputError as error:
                    if "step 0" not in str(error):
                        raise
    if trusted:
        seen.save(path.with_name("again.safetensors"))


def loaded(path: Path) -> None:
    """An entry of the kernel cache: the code that was kept, or none and a warning."""
    os.environ["CLEARHEAD_CACHE_DIR"] = str(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", store.CacheWarning)
        code = store.load_code(path.name)
    if code not in (None, CODE):
        raise AssertionError(f"not what was kept: {code!r}")


def explained(path: Path) -> None:
    """Vectors that are explained: some, each finite."""
    x = read_vectors(path).x
    if not (x.ndim == 2 and x.size and np.isfinite(x).all()):
        raise AssertionError(f"vectors of shape {x.shape}: {x}")


def known(path: Path) -> None:
    """Words' vectors, one looked up."""
    found = read_embeddings(path)
    found.look_up(found.words[-1])
    found.embed("the river")


def projected(path: Path) -> None:
    """A layer's matrices, which fit each other."""
    made = read_matrices(path)
    x = np.ones((2, made.query.shape[0]))
    x @ made.query @ (x @ made.key).T @ (x @ made.value)


# Files


def numbers(rng) -> np.ndarray:
    """A small array of any shape, perhaps of a dtype that is refused."""
    shape = tuple(rng.integers(0, 5, int(rng.integers(0, 4))))
    return rng.standard_normal(shape).astype(rng.choice(["f4", "f8", "f8", "f2", "i4"]))


def damaged(rng, path: Path) -> Path:
    """A file with some bytes changed."""
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(0, 4))):
        if not content:
            break
        at, count = int(rng.integers(len(content))), int(rng.integers(1, 9))
        if rng.random() < 0.5:
            at = min(at, int(rng.integers(200)), len(content) - 1)  # headers are short
        change = int(rng.integers(7))
        if change == 0:
            content[at] = int(rng.integers(256))
        elif change == 1:
            content[at] ^= 1 << int(rng.integers(8))
        elif change == 2:
            del content[at : at + count]
        elif change == 3:
            content[at:at] = content[at : at + count]
        elif change == 4:
            del content[at:]
        elif change == 5:
            content[at : at + count] = rng.choice([b"\x00", b"\xff", b"\x7f"]) * count
        else:
            digits = [i for i, byte in enumerate(content) if 48 <= byte < 58] or [at]
            at = int(rng.choice(digits))
            content[at : at + 1] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    path.write_bytes(content)
    return path


def npy(rng, folder: Path) -> Path:
    """An array, damaged; or a header of random words over random bytes."""
    path = folder / "a.npy"
    if rng.random() < 0.5:
        np.save(path, numbers(rng))
        return damaged(rng, path)
    shape = rng.choice(
        ["()", "(3,)", "(2, 3)", "(-1,)", "(2**40,)", "(1099511627776, 0)", "(True, 2)", "[2]", "(2.0,)"]
    )
    dtype, order = str(rng.choice(DTYPES)), rng.choice(["True", "False", "1"])
    header = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    version = int(rng.integers(0, 5))
    length = struct.pack("<H" if version == 1 else "<I", len(header) + int(rng.choice([0, 0, 0, 1, -1, 1000])))
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + bytes(int(rng.integers(0, 100))))
    return path


def npz(rng, folder: Path) -> Path:
    """An archive, damaged; or of members that are no arrays, twice there, bombs, or compressed otherwise."""
    path = folder / "a.npz"
    if rng.random() < 0.6:
        save = np.savez_compressed if rng.random() < 0.5 else np.savez
        save(path, **{name: numbers(rng) for name in ("q", "k", "v")[: int(rng.integers(1, 4))]})
        return damaged(rng, path)
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(int(rng.integers(0, 4))):
            name = str(rng.choice(["x.npy", "x.npy", "y.npy", "../x.npy", "x", ".npy"]))
            part = npy(rng, folder).read_bytes() + bytes(int(rng.choice([0, 0, 1, 1 << 22])))
            archive.writestr(name, part, methods[int(rng.integers(4))])
    (folder / "a.npy").unlink(missing_ok=True)
    return damaged(rng, path) if rng.random() < 0.3 else path


def safetensors(rng, folder: Path) -> Path:
    """Arrays, damaged; or a header of random words over random bytes."""
    path = folder / "a.safetensors"
    if rng.random() < 0.5:
        save_file({name: numbers(rng) for name in ("q", "k", "v")[: int(rng.integers(1, 4))]}, path)
        return damaged(rng, path)
    any_of = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    entries = {}
    for n in range(int(rng.integers(0, 4))):
        size = any_of(0, 8, 16, 24)
        entries[any_of("x", "q", "", "__metadata__", f"n{n}")] = any_of(
            {"dtype": any_of("F32", "F64", "BF16", "I8", "X"),
             "shape": any_of([], [2], [size // 4], [2, 2**62], [-1], [0, 2**63]),
             "data_offsets": any_of([0, size], [size, 0], [0, 2**63], [-8, 0], [8 * n, 8 * n + size])},
            {"dtype": "F32"}, [], None, 3, "x", {"a": "b"},
        )  # fmt: skip
    header = json.dumps(entries).encode()
    length = any_of(len(header), len(header), len(header), len(header) + 8, 0, 2**63, 2**40)
    path.write_bytes(struct.pack("<Q", length) + header + bytes(int(rng.integers(0, 80))))
    return path


def exchanged(rng, path: Path) -> Path:
    """A file of arrays, some of them cut, flattened, renamed, of another dtype, emptied, gone, or of odd numbers."""
    found = load_file(path)
    with open(path, "rb") as file:
        about = json.loads(file.read(struct.unpack("<Q", file.read(8))[0])).get("__metadata__")
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(sorted(found)))
        x, change = found[name], int(rng.integers(9))
        if change == 0:
            del found[name]
        elif change == 1 and x.ndim:
            found[name] = x[..., : int(rng.integers(0, x.shape[-1] + 1))]
        elif change == 2:
            found[name] = x.ravel()
        elif change == 3:
            found[str(rng.choice(sorted(found))) + str(rng.choice(["", ".0", "x"]))] = x
        elif change == 4:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = x.astype(rng.choice(["i8", "f2", "f4", "f8", "?", "u2", "i1"]))
        elif change == 5:
            found[name] = np.zeros((0,) * max(1, x.ndim), x.dtype)
        elif change == 6 and x.ndim > 1:
            found[name] = np.moveaxis(x, 0, -1)
        elif change == 7 and x.ndim:
            found[name] = np.concatenate([x, x])
        elif x.size and x.dtype.kind == "f":
            found[name] = x.copy()
            found[name].flat[int(rng.integers(x.size))] = rng.choice([np.nan, np.inf, -1, 1e30, 0, 7, 1.5, -1e9, 3])
        if not found:
            break
    if about and rng.random() < 0.6:
        word = str(rng.choice(sorted(about)))
        about[word] = str(
            rng.choice(
                ["", "0", "-1", "16", "1,2", "True", "float16", "bfloat16", "object", "nan,nan", "9" * 30, "144", "x"]
            )
        )
    save_file({name: np.ascontiguousarray(x) for name, x in found.items()}, path, about)
    return path


def cache(rng, folder: Path) -> Path:
    """A saved cache."""
    path, narrow = folder / "a.safetensors", rng.random() < 0.3
    kept = KeyValueCache(
        window=int(rng.choice([5, 200])) if rng.random() < 0.5 else None, dtype="int8" if narrow else None
    )
    lead, dtype = ((2,) if rng.random() < 0.5 else ()), np.float32 if narrow else rng.choice(["f4", "f8", "f2"])
    for n in rng.integers(1, 200, int(rng.integers(1, 4))):
        kept.append(
            rng.standard_normal((*lead, 2, n, 4)).astype(dtype), rng.standard_normal((*lead, 2, n, 3)).astype(dtype)
        )
    kept.save(path)
    return exchanged(rng, path) if rng.random() < 0.7 else damaged(rng, path)


def watch(rng, folder: Path) -> Path:
    """A saved watch."""
    path, batch = folder / "a.safetensors", int(rng.integers(1, 3))
    options = [{}, {"left": 3}, {"cap": 5.0}, {"sink": np.zeros(4, np.float32)}]
    runs = [
        {n: record(batch, **options[int(rng.integers(len(options)))]) for n in range(int(rng.integers(1, 3)))}
        for _ in range(int(rng.integers(1, 3)))
    ]
    watch_of(*runs).save(path)
    change = rng.random()
    return exchanged(rng, path) if change < 0.4 else described(rng, path) if change < 0.7 else damaged(rng, path)


def described(rng, path: Path) -> Path:
    """A file whose description in JSON has values of other kinds and sizes, or parts that are gone or doubled."""
    found = load_file(path)
    told = json.loads(found["about"].tobytes())
    for _ in range(int(rng.integers(1, 4))):
        at = told
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = keys[int(rng.integers(len(keys)))]
            if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.8:
                at = at[key]
                continue
            change = int(rng.integers(4))
            if change == 0:
                del at[key]
            elif change == 1 and isinstance(at, list):
                at.append(at[key])
            else:
                at[key] = deepcopy(ODD[int(rng.integers(len(ODD)))])
            break
    found["about"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    save_file(found, path)
    return path


ODD = [
    None,
    True,
    0,
    1,
    -1,
    7,
    1 << 53,
    1 << 64,
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "float32",
    [],
    {},
]
ODD += [[0], [5, 1], {"0": 1}, "x" * 5000]


def entry(rng, folder: Path) -> Path:
    """An entry of the kernel cache."""
    before = dict(os.environ)
    os.environ["CLEARHEAD_CACHE_DIR"] = str(folder)
    store.save_code("forward-f32-generic-0", CODE)
    os.environ.pop("CLEARHEAD_CACHE_DIR")
    os.environ.update(before)
    return damaged(rng, folder / "forward-f32-generic-0")


def table(rng, folder: Path) -> Path:
    """Vectors as text, with a header and names or without, in any of the usual forms."""
    path = folder / f"a{rng.choice(['.csv', '.tsv', '.txt'])}"
    between = str(rng.choice([",", "\t", ";", " ", ", "]))
    width, form = int(rng.integers(1, 4)), str(rng.choice(["%.3f", "%d", "%g", "%e", "nan", "1e999", "%.2f%%"]))
    rows = [[form % x if "%" in form else form for x in rng.standard_normal(width) * 9] for _ in range(4)]
    if rng.random() < 0.5:
        rows = [[word, *row] for word, row in zip(["the", "", "été", '"a b"'], rows, strict=True)]
    if rng.random() < 0.5:
        rows.insert(0, [str(rng.choice(["word", "0", "x", "#"])), *map(str, range(len(rows[0]) - 1))])
    lines = [between.join(row) for row in rows]
    if rng.random() < 0.2:
        lines = [f"[{line}]" for line in lines]
    path.write_text(str(rng.choice(["\n", "\r\n", "\n\n"])).join(lines), encoding=str(rng.choice(["utf-8", "utf-16"])))
    return damaged(rng, path)


def raw(rng, folder: Path) -> Path:
    """Vectors as an array."""
    return npy(rng, folder)


def embeddings(rng, folder: Path) -> Path:
    """Word vectors, as text or as an array with its words beside it."""
    words, x = ["the", "river", "été", "a b"], rng.standard_normal((4, 3)).astype("f4")
    if rng.random() < 0.5:
        path = folder / "a.txt"
        lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, x, strict=True)]
        path.write_text("\n".join([str(rng.choice(["4 3", "3", "4 " + "9" * 5000])), *lines][int(rng.integers(2)) :]))
        return damaged(rng, path)
    path = folder / "a.safetensors"
    save_file({"vectors": x}, path, {"vocabulary": "\n".join(words)})
    return exchanged(rng, path) if rng.random() < 0.5 else damaged(rng, path)


def matrices(rng, folder: Path) -> Path:
    """A layer's matrices."""
    held = {name: rng.standard_normal((4, 3)).astype("f4") for name in ("W_Q", "W_K", "W_V")}
    if rng.random() < 0.5:
        path = folder / "a.npz"
        np.savez(path, **held)
        return damaged(rng, path)
    path = folder / "a.safetensors"
    save_file(held, path)
    return exchanged(rng, path) if rng.random() < 0.7 else damaged(rng, path)


READERS = {
    npy: arrays, npz: arrays, safetensors: arrays, cache: decoded, watch: asked, entry: loaded, table: explained,
    raw: explained, embeddings: known, matrices: projected,
}  # fmt: skip
KINDS = list(READERS)
