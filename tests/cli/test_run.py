"""`clearhead run`: the definition's values from any file, streamed, and nothing left by what goes wrong."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import clearhead
from clearhead.cli import command as cli
from clearhead.cli import job as jobs
from clearhead.cli import run as streaming
from clearhead.cli import steps
from clearhead.definition import textbook
from clearhead.rules.masks import causal, full, visible, window

COMMAND = (sys.executable, "-m", "clearhead", "run")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")


def draw(*shapes, dtype="float32"):
    rng = np.random.default_rng(len(shapes))
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def save(path, **arrays):
    if path.suffix == ".npy":
        np.save(path, arrays["x"])
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def load(path):
    if path.suffix == ".npy":
        return {"output": np.load(path)}
    return load_file(path) if path.suffix == ".safetensors" else dict(np.load(path))


def run(source, target, *arguments):
    """The command's exit code; both files may be given as paths."""
    return cli.main(["run", str(source), "-o", str(target), *arguments])


def close(actual, expected):
    tolerance = 2e-5 if actual.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def in_float64(*arrays):
    return tuple(array.astype(np.float64) for array in arrays)


@pytest.fixture
def small_steps(monkeypatch):
    """A few rows or heads a step even for small arrays."""
    monkeypatch.setattr(steps, "STEP_BYTES", 5000)
    monkeypatch.setattr(steps, "WHOLE_TILES", 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 16), (1, 7, 16), (5, 33, 16), (2, 3, 2, 9, 5), (3, 1, 4), (2, 0, 4), (0, 3, 4)])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.usefixtures("small_steps")
def test_x_attends_to_itself_without_scale(tmp_path, suffix, shape, dtype):
    (x,) = draw(shape, dtype=dtype)
    assert run(save(tmp_path / f"in{suffix}", x=x), tmp_path / f"out{suffix}") == 0
    output = load(tmp_path / f"out{suffix}")["output"]
    assert output.dtype == x.dtype
    close(output, textbook.self_attention(*in_float64(x)))
    np.testing.assert_array_equal(output, clearhead.self_attention(x))


@pytest.mark.parametrize(
    "shapes",
    [
        ((9, 8), (9, 8), (9, 4)),
        ((6, 9, 8), (6, 9, 8), (6, 9, 8)),
        ((6, 9, 8), (2, 9, 8), (2, 9, 4)),  # three query heads share a key head
        ((6, 9, 8), (1, 9, 8), (1, 9, 8)),
        ((6, 9, 8), (9, 8), (9, 8)),
        ((9, 8), (6, 9, 8), (6, 9, 8)),
        ((2, 12, 9, 8), (2, 3, 9, 8), (1, 3, 9, 8)),
        ((3, 1, 6, 9, 8), (2, 2, 9, 8), (2, 9, 8)),
    ],
)
@pytest.mark.parametrize("step", [1, 3000, 10**9])
def test_any_leading_axes_are_streamed_to_the_same_bits(tmp_path, shapes, step, monkeypatch):
    monkeypatch.setattr(steps, "STEP_BYTES", step)
    monkeypatch.setattr(steps, "WHOLE_TILES", 2)
    q, k, v = draw(*shapes)
    source = save(tmp_path / "in.npz", q=q, k=k, v=v)
    assert run(source, tmp_path / "out.npz", "--lse", "--weights", "0,-1") == 0
    made = load(tmp_path / "out.npz")
    done = clearhead.attend(q, k, v)
    np.testing.assert_array_equal(made["output"], done.output)
    np.testing.assert_array_equal(made["lse"], done.lse)
    lead = done.output.shape[:-2]
    assert made["weights"].shape == (*lead, 2, 9)
    np.testing.assert_array_equal(made["weights"], np.broadcast_to(done.weights[..., [0, -1], :], (*lead, 2, 9)))
    q, k, v = in_float64(q, k, v)
    s = textbook.scores(q, textbook.share_heads(k, q), 8**-0.5)
    weights = np.broadcast_to(textbook.softmax(s, visible(causal(), 9, 9)), (*lead, 9, 9))
    close(made["weights"], weights[..., [0, -1], :])
    close(made["output"], textbook.attention(q, k, v))


@settings(max_examples=60, deadline=None)
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    key_heads=st.integers(1, 4),
    group=st.integers(1, 4),
    step=st.integers(1, 20_000),
)
def test_every_head_is_computed_once_whatever_the_step(tmp_path_factory, lead, key_heads, group, step):
    q, k, v = draw((*lead, key_heads * group, 4, 3), (*lead, key_heads, 4, 3), (*lead, key_heads, 4, 2))
    folder, counts = tmp_path_factory.mktemp("steps"), []
    job = jobs.job_for(save(folder / "in.safetensors", q=q, k=k, v=v), jobs.Options())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "STEP_BYTES", step)
        patch.setattr(steps, "WHOLE_TILES", 1)
        streaming.execute(job, folder / "out.npy", show=lambda total, done: nullcontext(counts.append))
    assert sum(counts) == job.problem.pairs == np.prod(q.shape[:-2]) * 10
    np.testing.assert_array_equal(np.load(folder / "out.npy"), clearhead.attention(q, k, v))


@pytest.mark.parametrize(
    ("arguments", "mask", "scale"),
    [
        (("--align", "end"), causal(align="end"), None),
        (("--align", "start"), causal(align="start"), None),
        (("--mask", "full"), full(), None),
        (("--mask", "full", "--align", "end"), full() & window(None, None, align="end"), None),
        (("--mask", "full", "--scale", "0.25", "--threads", "2"), full(), 0.25),
    ],
)
def test_options_mean_what_they_say(tmp_path, arguments, mask, scale):
    q, k, v = draw((2, 5, 8), (2, 9, 8), (2, 9, 8))
    source = save(tmp_path / "in.npz", q=q, k=k, v=v)
    assert run(source, tmp_path / "out.safetensors", *arguments, "--lse", "--weights", "4,0,-2,4") == 0
    made, (q, k, v) = load(tmp_path / "out.safetensors"), in_float64(q, k, v)
    s, seen = textbook.scores(q, k, scale or 8**-0.5), visible(mask, 5, 9)
    close(made["output"], textbook.attention(q, k, v, mask=mask, scale=scale))
    close(made["lse"], textbook.log_sum_exp(s, seen))
    close(made["weights"], textbook.softmax(s, seen)[..., [4, 0, -2, 4], :])


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_column_order_gives_the_same_bits(tmp_path, axes):
    (x,) = draw((3, 6, 8))
    moved = np.asfortranarray(x.transpose(axes))
    assert run(save(tmp_path / "in.npy", x=moved), tmp_path / "out.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), clearhead.self_attention(np.ascontiguousarray(moved)))


def test_nan_in_the_future_stays_there(tmp_path):
    (x,) = draw((2, 6, 8))
    clean = clearhead.self_attention(x)
    x[:, 4:] = np.nan
    assert run(save(tmp_path / "in.npy", x=x), tmp_path / "out.npz", "--weights", "3") == 0
    made = load(tmp_path / "out.npz")
    np.testing.assert_array_equal(made["output"][:, :4], clean[:, :4])
    close(made["weights"].sum(-1), np.ones((2, 1)))


def test_the_last_line_tells_what_was_done(tmp_path, capsys):
    (x,) = draw((3, 100, 8))
    source = save(tmp_path / "in.npy", x=x)
    assert run(source, tmp_path / "out.npz", "--lse") == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        f"{tmp_path}/out.npz: output (3, 100, 8), lse (3, 100) in float32 from x (3, 100, 8), causal()"
    )
    assert out.rstrip().endswith("GF/s")
    assert err == ""
    assert run(source, tmp_path / "out.npz", "--force", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_operations_are_counted_over_the_pairs_that_are_seen(tmp_path):
    job = jobs.job_for(save(tmp_path / "in.npy", x=draw((3, 100, 8))[0]), jobs.Options())
    assert streaming.execute(job, tmp_path / "out.npy").flops == 3 * (100 * 101 // 2) * 2 * (8 + 8)


def test_compressed_input_works_and_says_what_it_costs(tmp_path, capsys):
    (x,) = draw((2, 5, 8))
    np.savez_compressed(tmp_path / "in.npz", x=x)
    assert run(tmp_path / "in.npz", tmp_path / "out.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), clearhead.self_attention(x))
    err = capsys.readouterr().err
    assert f"x in {tmp_path}/in.npz is compressed, so it was decompressed into memory (320 bytes)" in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_bar_and_a_pipe_does_not(tmp_path):
    source = save(tmp_path / "in.npy", x=draw((3, 5, 8))[0])
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(
        [*COMMAND, source, "-o", tmp_path / "a.npy"], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "100 % of 45 pairs" in re.sub(r"\x1b\[[0-9;]*m", "", shown)  # without colours
    piped = subprocess.run([*COMMAND, source, "-o", tmp_path / "b.npy"], capture_output=True, check=True)
    assert piped.stderr == b""


# What a user may do wrong: the arrays, the arguments, and what the one line must say.
F = np.float32
Q, K = np.ones((2, 5, 8), F), np.ones((2, 9, 8), F)
MISTAKES = [
    ({"x": np.ones((3, 4), int)}, (), r"x in .*in\.npz is of dtype int64: convert it to float32 or float64"),
    ({"x": np.ones((3, 4), complex)}, (), "complex128: attention is not defined for complex numbers"),
    ({"x": np.ones((3, 4), ">f4")}, (), "big-endian"),
    ({"x": np.ones((3, 4), np.float16)}, (), "float16: convert it"),
    ({"q": Q, "k": Q, "v": Q.astype(float)}, (), r"in\.npz: .*float32, float32 and float64"),
    ({"x": np.ones(3, F)}, (), r"in\.npz, whose x is q, k and v: .*\(3,\).*\(\.\.\., length, dim\)"),
    ({"x": np.float32(3)}, (), r"single number"),
    ({"x": np.ones((3, 0), F)}, (), r"\(3, 0\)"),
    ({"y": Q}, (), r"in\.npz holds y: name its arrays x, or q, k and v"),
    ({"q": Q, "k": Q}, (), r"in\.npz holds k, q: name"),
    ({"q": Q, "k": Q, "v": Q, "x": Q}, (), r"in\.npz holds k, q, v, x: name"),
    ({}, (), r"in\.npz holds no array"),
    ({f"w{i}": Q for i in range(7)}, (), r"in\.npz holds w0, w1, w2, w3, w4 and 2 more: name"),
    ({"q": Q, "k": Q[..., :6], "v": Q}, (), r"in\.npz: .*dim 8 .*dim 6"),
    ({"q": Q, "k": Q, "v": K}, (), r"in\.npz: 5 keys do not match 9 values"),
    (
        {"q": np.ones((5, 4, 8), F), "k": np.ones((2, 4, 8), F), "v": np.ones((2, 4, 8), F)},
        (),
        "5 query heads",
    ),
    (
        {"q": np.ones((2, 3, 4, 8), F), "k": np.ones((5, 3, 4, 8), F), "v": np.ones((3, 4, 8), F)},
        (),
        "leading axes",
    ),
    ({"q": Q, "k": K, "v": K}, (), r"in\.npz: causal\(\) is ambiguous for 5 queries and 9 keys"),
    (
        {"q": Q, "k": K, "v": K},
        ("--mask", "full", "--score", "alibi"),
        "does not say where 5 queries stand among 9 keys",
    ),
    ({"q": Q, "k": K, "v": K}, ("--align", "middle"), "--align middle is not an alignment"),
    ({"x": Q}, ("--mask", "sliding"), "'sliding' is not a mask: use causal, full"),
    ({"x": Q}, ("--scale", "inf"), "not finite"),
    ({"x": Q}, ("--scale", "big"), "'--scale'"),
    ({"x": Q}, ("--threads", "0"), "--threads 0 is not"),
    ({"x": Q}, ("--weights", "1,two"), "'1,two' is not a list of positions"),
    ({"x": Q}, ("--weights", ""), "'' is not a list of positions"),
    ({"x": Q}, ("--weights", "5"), "row 5 is not one of the 5 queries"),
    ({"x": Q}, ("--weights", "-6"), "row -6 is not one of the 5 queries"),
]


@pytest.mark.parametrize(("arrays", "arguments", "message"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_mistakes_are_told_in_one_line_and_leave_no_file(tmp_path, capsys, arrays, arguments, message):
    source = save(tmp_path / "in.npz", **arrays)
    complains(capsys, message, source, tmp_path / "out.npz", *arguments)
    assert os.listdir(tmp_path) == ["in.npz"]


def complains(capsys, message, *arguments):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_files_that_cannot_be_used_are_named(tmp_path, capsys):
    source = save(tmp_path / "in.npz", x=Q)
    (tmp_path / "cut.npz").write_bytes(source.read_bytes()[:-9])
    (tmp_path / "there.npy").write_bytes(b"precious")
    (tmp_path / "link.npz").symlink_to(source)
    before = sorted(os.listdir(tmp_path))
    for message, *arguments in [
        ("gone.npz cannot be read", tmp_path / "gone.npz", tmp_path / "out.npz"),
        ("cut.npz is not a complete .npz file", tmp_path / "cut.npz", tmp_path / "out.npz"),
        ("no suffix that names a format", source, tmp_path / "out.txt"),
        ("no suffix that names a format", source, tmp_path / "out"),
        ("gone/out.npz cannot be written", source, tmp_path / "gone/out.npz"),
        ("is a directory", source, tmp_path),
        ("there.npy exists already: .* --force", source, tmp_path / "there.npy"),
        ("in.npz is the input itself", source, source, "--force"),
        ("link.npz is the input itself", source, tmp_path / "link.npz", "--force"),
        ("out.npy can hold one array, not output, lse", source, tmp_path / "out.npy", "--lse"),
    ]:
        complains(capsys, message, *arguments)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.npy").read_bytes() == b"precious"
    np.testing.assert_array_equal(np.load(source)["x"], Q)


def endless(path):
    """A file that takes minutes, though it is nearly all hole: one head of 300000 items."""
    np.lib.format.open_memmap(path, "w+", np.float32, (300_000, 64)).flush()
    return path


def begun(process, folder):
    """Whether a run has made its new file, with a name or without one."""
    opened = []
    for link in Path(f"/proc/{process.pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            opened.append(os.readlink(link))
    return len(os.listdir(folder)) == 3 or any(str(folder) in one and "deleted" in one for one in opened)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("ending", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGKILL", -9)])
def test_an_interrupted_run_leaves_nothing(tmp_path, ending, code):
    source, target = endless(tmp_path / "in.npy"), tmp_path / "out.npy"
    target.write_bytes(b"precious")
    process = subprocess.Popen([*COMMAND, source, "-o", target, "--force"], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not begun(process, tmp_path) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert begun(process, tmp_path), "the temporary file never appeared"
        time.sleep(0.5)  # into the computation
        process.send_signal(getattr(signal, ending))
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert b"Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["in.npy", "out.npy"]
    assert target.read_bytes() == b"precious"


@LINUX
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_memory_stays_small_beside_the_files(tmp_path, suffix):
    """536 MB of files pass through; the process may grow by an eighth of them, mapped pages included."""
    heads, length, dim = 4096, 256, 64
    np.lib.format.open_memmap(tmp_path / "in.npy", "w+", np.float32, (heads, length, dim)).flush()
    code = """if True:
        import sys, numpy as np
        from pathlib import Path
        from clearhead import self_attention
        from clearhead.cli import job as jobs, run as streaming
        self_attention(np.zeros((2, 256, 64), np.float32))
        status = lambda name: int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])
        job = jobs.job_for(sys.argv[1], jobs.Options(rows=(0, -1) if sys.argv[2][-1] != "y" else ()))
        before = status("VmRSS")
        streaming.execute(job, sys.argv[2])
        print(status("VmHWM") - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "in.npy", tmp_path / f"out{suffix}"],
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) * 1024 < heads * length * dim * 4 * 2 / 8
    assert (tmp_path / f"out{suffix}").stat().st_size > heads * length * dim * 4


RULES = [
    (("--mask", "window:3"), {"mask": clearhead.window(3)}),
    (("--mask", "causal | prefix:2"), {"mask": causal() | clearhead.prefix(2)}),
    (("--mask", "~window:1,1 & full"), {"mask": ~clearhead.window(1, 1) & full()}),
    (("--mask", "dilated:3"), {"mask": clearhead.dilated(3)}),
    (("--mask", "~dilated:2 & window:4"), {"mask": ~clearhead.dilated(2) & clearhead.window(4)}),
    (("--mask", "documents:4,5"), {"mask": clearhead.documents([4, 5])}),
    (("--score", "softcap:2", "--score", "alibi"), {"score": [clearhead.softcap(2), clearhead.alibi(3)]}),
    (("--rule", "rules.py:farther"), {"score": lambda s, b, h, q, k: s + (h + 1) * (q - k) * 0.1}),
]


@pytest.mark.parametrize(("arguments", "rules"), RULES)
@pytest.mark.parametrize("shape", [(3, 9, 4), (2, 3, 9, 4)])
@pytest.mark.usefixtures("small_steps")
def test_rules_are_those_of_the_library(tmp_path, monkeypatch, arguments, rules, shape):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.py").write_text(
        "def farther(s, batch, head, query, key):\n    return s + (head + 1) * (query - key) * 0.1\n"
    )
    q, k, v = draw(shape, shape, shape)
    source = save(tmp_path / "in.npz", q=q, k=k, v=v)
    assert run(source, tmp_path / "out.npz", *arguments, "--weights", "0,-1", "--lse", "--quiet") == 0
    found, done = load(tmp_path / "out.npz"), clearhead.attend(q, k, v, **rules)
    np.testing.assert_array_equal(found["output"], done.output)
    np.testing.assert_array_equal(found["lse"], done.lse)
    np.testing.assert_array_equal(found["weights"], done.weights[..., [0, -1], :])
    close(found["weights"] @ v, done.output[..., [0, -1], :])


@pytest.mark.usefixtures("small_steps")
def test_weights_read_the_heads_of_the_values_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.py").write_text("def per_head(s, batch, head, query, key):\n    return s * (head + 1)\n")
    q, k, v = draw((1, 9, 4), (1, 9, 4), (3, 9, 4))
    source = save(tmp_path / "in.npz", q=q, k=k, v=v)
    assert run(source, tmp_path / "out.npz", "--rule", "rules.py:per_head", "--weights", "3,-1", "--quiet") == 0
    found = load(tmp_path / "out.npz")
    close(found["weights"] @ v, found["output"][..., [3, -1], :])


def test_weights_have_the_bits_of_the_library_for_any_matrix_product(tmp_path):
    """OPENBLAS_CORETYPE chooses among numpy's matrix products as another machine does."""
    source, found = save(tmp_path / "in.npy", x=draw((2, 300, 80))[0]), []
    for core in ("Prescott", "Haswell"):
        target = tmp_path / f"{core}.npz"
        command = [*COMMAND, source, "-o", target, "--scale", "0.1", "--weights", "7,299", "--quiet"]
        subprocess.run(command, check=True, env={**os.environ, "OPENBLAS_CORETYPE": core})
        found.append(target.read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mask", "windows:3"), ["windows:3", "window:LEFT"]),
        (("--mask", "window"), ["window:255"]),
        (("--mask", "documents:4,4"), ["9"]),
        (("--score", "softcap"), ["softcap", "30"]),
        (("--score", "tanh"), ["tanh", "--rule"]),
        (("--rule", "rules.py"), ["file.py:function"]),
        (("--rule", "nowhere.py:f"), ["clearhead: nowhere.py is not there"]),
        (("--rule", "rules.py:g"), ["clearhead: rules.py has no function g", "branches"]),
        (("--rule", "rules.py:branches"), ["rules.py, line 2", "np.where"]),
    ],
)
def test_wrong_rules_leave_nothing(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.py").write_text("def branches(s, b, h, q, k):\n    return s if s > 0 else 0\n")
    source = save(tmp_path / "in.npz", x=draw((9, 4))[0])
    assert run(source, tmp_path / "out.npz", *arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert all(word in complaint for word in words), complaint
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != "") == ["in.npz", "rules.py"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--threads", "0"), "--threads 0 is not a number of threads: use 1, 2, 3 … or leave it out for the default."),
        (("--scale", "nan"), "--scale nan is not finite: give a finite number, or leave it out for 1/√dim."),
        (("--mask", "causal & (full | prefix:2)"), "write a & (b | c) as a & b | a & c"),
        ((), "exists already: choose another name, or replace it with --force."),
    ],
)
def test_errors_name_options_not_pythons_arguments(capsys, tmp_path, arguments, said):
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    np.save(tmp_path / "y.npy", np.ones((4, 2)))
    assert (
        cli.main(
            ["run", str(tmp_path / "x.npy"), "-o", str(tmp_path / ("new.npy" if arguments else "y.npy")), *arguments]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert said in error
    assert "None" not in error
