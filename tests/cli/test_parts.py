"""Parts of a run and `clearhead join`: the bits of a run in one piece, or an error that names what does not fit."""

import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import clearhead
from clearhead.cli import command as cli
from tests.cli.test_resume import CASES, killed_after, short_steps  # noqa: F401
from tests.cli.test_run import complains, draw, load, run, save


def join(target, *arguments):
    return cli.main(["join", str(target), *arguments])


def will_not_join(capsys, message, target, *arguments):
    before = {name: (target.parent / name).read_bytes() for name in os.listdir(target.parent)}
    capsys.readouterr()
    assert join(target, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert before == {name: (target.parent / name).read_bytes() for name in os.listdir(target.parent)}


def in_parts(source, target, parts, *arguments, but=()):
    for part in range(1, parts + 1):
        if part not in but:
            assert run(source, target, "--part", f"{part}/{parts}", *arguments) == 0


@pytest.mark.parametrize(("name", "parts"), [*product(CASES, (1, 2, 3, 7)), ("qkv.safetensors", 60)])
@pytest.mark.usefixtures("short_steps")
def test_parts_join_to_the_file_of_one_run(tmp_path, name, parts):
    names, shapes, arguments = CASES[name]
    source = save(tmp_path / name, **dict(zip(names, draw(*shapes), strict=True)))
    whole, target = tmp_path / f"whole{source.suffix}", tmp_path / f"out{source.suffix}"
    assert run(source, whole, *arguments) == 0
    in_parts(source, target, parts, *arguments)
    assert len(os.listdir(tmp_path)) == parts + 2
    assert join(target) == 0
    assert target.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([name, whole.name, target.name])


@pytest.mark.usefixtures("short_steps")
def test_a_part_that_was_killed_goes_on(tmp_path):
    source, target = save(tmp_path / "in.npz", x=draw((2, 40, 8))[0]), tmp_path / "out.npz"
    arguments = ("--weights", "3,-1", "--lse", "--resume", "--score", "alibi")
    for part in ("1/2", "2/2"):
        counts = [killed_after(2, source, target, "--part", part, *arguments) for _ in range(30)]
        assert 3 in counts
        assert counts[-1] == 0, "a whole part is not computed again"
    assert len(os.listdir(tmp_path)) == 3
    assert join(target) == 0
    done, x = load(target), np.load(source)["x"]
    expected = clearhead.attend(x, x, x, scale=1.0, score=clearhead.alibi(2))
    np.testing.assert_array_equal(done["output"], expected.output)
    np.testing.assert_array_equal(done["lse"], expected.lse)
    np.testing.assert_array_equal(done["weights"], expected.weights[..., [3, 39], :])


@pytest.fixture
def three(tmp_path):
    """A run in three parts."""
    source, target = save(tmp_path / "in.npz", x=draw((2, 40, 8))[0]), tmp_path / "out.npz"
    in_parts(source, target, 3)
    return source, target


def test_a_missing_part_is_named(three, capsys):
    piece = Path(f"{three[1]}.2-of-3.safetensors")
    piece.unlink()
    will_not_join(capsys, "part 2 of 3 is missing: compute it by --part 2/3.", three[1])
    in_parts(*three, 3, "--force", but=(1, 3))
    assert join(three[1]) == 0


@pytest.mark.usefixtures("short_steps")
def test_an_unfinished_part_is_named(three, capsys):
    Path(f"{three[1]}.2-of-3.safetensors").unlink()
    killed_after(2, *three, "--part", "2/3", "--resume")
    will_not_join(capsys, "part 2 of 3 is unfinished: go on with it by --part 2/3 --resume.", three[1])


def test_many_missing_parts_are_counted(tmp_path, capsys):
    source, target = save(tmp_path / "in.npz", x=draw((40, 8))[0]), tmp_path / "out.npz"
    in_parts(source, target, 9, but=range(2, 10))
    will_not_join(capsys, "parts 2, 3, 4, 5, 6 and 3 more of 9 are missing: compute the first by --part 2/9.", target)


def test_no_part_at_all_is_told(tmp_path, capsys):
    will_not_join(capsys, "has no parts beside it, such as out.npz.1-of-2.safetensors: compute", tmp_path / "out.npz")


def test_parts_of_two_cuts_are_told(three, capsys):
    in_parts(*three, 2)
    will_not_join(capsys, "has parts of 2 and parts of 3 beside it: remove those that you do not want", three[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mask", "full"), "--mask is full() there, and causal() in the first"),
        (("--scale", "0.5"), "--scale is 0.5 there, and 1.0 in the first"),
        (("--lse",), "--lse is given there, and not given in the first"),
    ],
)
def test_a_part_of_another_run_is_named_with_what_differs(three, capsys, arguments, message):
    in_parts(*three, 3, "--force", *arguments, but=(1, 3))
    will_not_join(
        capsys, f"out.npz.2-of-3.safetensors is of another run than out.npz.1-of-3.safetensors: {message}", three[1]
    )


def test_a_part_of_another_input_is_named(three, capsys):
    save(three[0], x=draw((2, 40, 8))[0] + 1)
    in_parts(*three, 3, "--force", but=(1, 3))
    will_not_join(
        capsys, "2-of-3.safetensors is of another run than out.npz.1-of-3.safetensors: the input's content is", three[1]
    )


def test_a_copy_of_the_input_will_do(three):
    copy = three[0].with_name("copy.npz")
    shutil.copyfile(three[0], copy)
    os.utime(copy, (1, 1))
    in_parts(copy, three[1], 3, "--force", but=(1, 3))
    assert join(three[1]) == 0


def test_a_file_that_is_no_part_is_named(three, capsys):
    piece = Path(f"{three[1]}.2-of-3.safetensors")
    content = piece.read_bytes()
    for wrong in (content[:-5], b"", b"text", bytes(len(content))):
        piece.write_bytes(wrong)
        will_not_join(capsys, "2-of-3.safetensors is not a part of a run", three[1])
    Path(f"{three[1]}.1-of-3.safetensors").replace(piece)
    shutil.copyfile(piece, f"{three[1]}.1-of-3.safetensors")
    will_not_join(capsys, "do not hold each row once", three[1])


def test_parts_whose_files_changed_names_join_by_their_plans(three):
    first, second, other = (Path(f"{three[1]}.{name}.safetensors") for name in ("1-of-3", "2-of-3", "other"))
    for source, target in ((first, other), (second, first), (other, second)):
        source.replace(target)
    assert join(three[1]) == 0
    np.testing.assert_array_equal(load(three[1])["output"], clearhead.self_attention(np.load(three[0])["x"]))
    assert sorted(os.listdir(three[0].parent)) == ["in.npz", "out.npz"]


def test_a_part_of_another_run_is_named_as_its_file(three, capsys):
    in_parts(*three, 3, "--force", "--lse", but=(1, 2))
    second, last = (Path(f"{three[1]}.{n}-of-3.safetensors") for n in (2, 3))
    shutil.copyfile(last, second)
    will_not_join(capsys, "out.npz.2-of-3.safetensors is of another run than out.npz.1-of-3.safetensors", three[1])


@pytest.mark.parametrize("at", [-1, -100, -300])
def test_a_part_that_was_damaged_on_the_disk_is_named(three, capsys, at):
    piece = Path(f"{three[1]}.2-of-3.safetensors")
    content = bytearray(piece.read_bytes())
    content[at] ^= 1
    piece.write_bytes(content)
    will_not_join(capsys, "2-of-3.safetensors is damaged, for its checksum is another: compute it again", three[1])


def test_a_part_of_another_run_is_not_resumed_and_named_with_what_differs(three, capsys):
    again = (*three, "--part", "2/3", "--resume")
    complains(
        capsys, r"--mask was causal\(\) and is full\(\): .* compute it again by --force", *again, "--mask", "full"
    )
    os.truncate(f"{three[1]}.2-of-3.safetensors", 500)
    complains(capsys, "2-of-3.safetensors is not a part of a run", *again)
    assert run(*again, "--force") == 0
    assert join(three[1]) == 0


def test_a_whole_file_in_the_way_stays(three, capsys):
    three[1].write_bytes(b"precious")
    will_not_join(capsys, "exists already", three[1])
    assert join(three[1], "--force", "--keep") == 0
    np.testing.assert_array_equal(load(three[1])["output"], clearhead.self_attention(np.load(three[0])["x"]))
    assert len(os.listdir(three[0].parent)) == 5
    assert join(three[1], "--force", "--quiet") == 0
    assert len(os.listdir(three[0].parent)) == 2


def test_a_part_that_is_there_is_computed_again_only_by_force(three, capsys):
    complains(capsys, "1-of-3.safetensors exists already", *three, "--part", "1/3")
    assert run(*three, "--part", "1/3", "--resume") == 0
    assert "there already" in capsys.readouterr().out
    assert run(*three, "--part", "1/3", "--resume", "--force") == 0
    assert "there already" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "part",
    [
        "3",
        "0/3",
        "4/3",
        "1/0",
        "-1/3",
        "a/b",
        "1/",
        "/3",
        "1.5/3",
        "",
        "1/1000000",
        "1/" + 5000 * "9",
        5000 * "0" + "1/2",
        "٣/٣",
    ],
)
def test_what_is_no_part_is_refused(tmp_path, capsys, part):
    source = save(tmp_path / "in.npz", x=draw((4, 8))[0])
    complains(
        capsys,
        " ".join(f"--part {part[:40]} is not a part of a run: write 3/16".split()),
        source,
        tmp_path / "out.npz",
        "--part",
        part,
    )


def test_an_output_that_cannot_hold_the_arrays_is_refused_before_a_part_is_computed(tmp_path, capsys):
    source = save(tmp_path / "in.npz", x=draw((4, 8))[0])
    complains(capsys, "out.npy can hold one array", source, tmp_path / "out.npy", "--part", "1/2", "--lse")
    assert os.listdir(tmp_path) == ["in.npz"]


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4)])
def test_nothing_in_parts_is_nothing(tmp_path, shape):
    source, target = save(tmp_path / "in.npz", x=np.zeros(shape, np.float32)), tmp_path / "out.npz"
    in_parts(source, target, 2, "--resume")
    assert join(target) == 0
    assert load(target)["output"].shape == shape
