"""Array files: each format is read and written right, damage is noticed, and no half file is ever seen."""

import errno
import os
import subprocess
import sys
import tracemalloc
import zipfile
from importlib.metadata import version
from mmap import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import clearhead
from clearhead.errors import ClearheadError, DtypeError, FileError
from clearhead.files import Spec, new_file, open_arrays, reading, release

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
FORMATS = (".npy", ".npz", ".compressed.npz", ".safetensors")


def save(path, x):
    if path.name.endswith(".compressed.npz"):
        np.savez_compressed(path, x=x)
    elif path.suffix == ".npz":
        np.savez(path, other=np.arange(3), x=x)
    elif path.suffix == ".npy":
        np.save(path, x)
    else:
        save_file({"other": np.arange(3), "x": x}, path)
    return path


def load(path):
    return {"output": np.load(path)} if path.suffix == ".npy" else dict(loader(path))


def loader(path):
    return load_file(path) if path.suffix == ".safetensors" else np.load(path)


@pytest.fixture(params=FORMATS)
def suffix(request):
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (5,), (), (0, 3), (2, 1, 3, 4, 5)])
def test_what_was_saved_is_read_back(tmp_path, suffix, dtype, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    read = open_arrays(save(tmp_path / f"a{suffix}", x))["x"]
    assert read.dtype == x.dtype
    np.testing.assert_array_equal(read, x)


def test_arrays_are_mapped_and_read_only(tmp_path, suffix):
    file = open_arrays(save(tmp_path / f"a{suffix}", X))
    assert not file["x"].flags.writeable
    assert isinstance(file["x"].base, mmap) == (suffix != ".compressed.npz")
    assert ("x" in file.compressed) == (suffix == ".compressed.npz")
    release(file["x"])
    np.testing.assert_array_equal(file["x"], X)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_column_order_is_kept(tmp_path, suffix):
    read = open_arrays(save(tmp_path / f"a{suffix}", np.asfortranarray(X)))["x"]
    assert read.flags.f_contiguous
    np.testing.assert_array_equal(read, X)


def test_a_file_cut_short_anywhere_is_refused(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", X)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(FileError, match=r"a\..*: save or copy it again"):
            open_arrays(path)["x"]


@settings(max_examples=300, deadline=None)
@given(suffix=st.sampled_from(FORMATS), where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_damaged_byte_is_an_error_or_another_array_but_never_a_crash(tmp_path_factory, suffix, where, byte):
    path = save(tmp_path_factory.mktemp("damaged") / f"a{suffix}", X)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] = byte
    path.write_bytes(content)
    message = ""
    try:
        file = open_arrays(path)
        for name in file.members:
            np.isnan(file[name]).any()
    except ClearheadError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"text, not arrays\n" * 50, b"\x93NUMPY\x01\x00", b"PK\x03\x04" + bytes(90)])
def test_other_files_are_no_arrays(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"is not a complete {suffix} file"):
        open_arrays(path)["x"]


def test_missing_files_directories_and_suffixes_are_named(tmp_path):
    with pytest.raises(FileError, match=r"gone\.npy cannot be read \(No such file"):
        open_arrays(tmp_path / "gone.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(FileError, match=r"folder\.npy cannot be read \(Is a directory"):
        open_arrays(tmp_path / "folder.npy")
    with pytest.raises(FileError, match=r"x\.txt has no suffix that names a format of arrays: use \.npy"):
        open_arrays(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype("int64"), "(int64|I64): convert it to float32 or float64 first"),
        (X.astype("float16"), "(float16|F16): convert it to float32"),
        (X > 0, "(bool|BOOL): convert it"),
        (X.astype("complex64"), "complex64: attention is not defined for complex|C64: convert it"),
    ],
)
def test_other_number_types_are_refused(tmp_path, suffix, x, message):
    if suffix == ".safetensors" and x.dtype.kind == "c" and version("safetensors") < "0.6":
        pytest.skip("this safetensors has no complex numbers")
    with pytest.raises(DtypeError, match=rf"x in .*a{suffix} is of dtype ({message})"):
        open_arrays(save(tmp_path / f"a{suffix}", x))["x"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_big_endian_arrays_are_refused_with_the_conversion(tmp_path, suffix, dtype):
    with pytest.raises(DtypeError, match=rf"big-endian, so save x\.astype\('<{dtype[1:]}'\)"):
        open_arrays(save(tmp_path / f"a{suffix}", X.astype(dtype)))["x"]


def test_bfloat16_is_refused_by_name(tmp_path):
    path = tmp_path / "a.safetensors"
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(DtypeError, match="BF16: convert it to float32"):
        open_arrays(path)["x"]


class Trap:
    def __reduce__(self):
        return (os.mkdir, (os.environ["TRAP"],))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".compressed.npz"])
def test_nothing_is_ever_unpickled(tmp_path, suffix, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    with pytest.raises(DtypeError, match="pickled objects are never loaded"):
        open_arrays(save(tmp_path / f"a{suffix}", np.array([Trap()], dtype=object)))["x"]
    assert not (tmp_path / "sprung").exists()


def test_arrays_that_are_not_asked_for_may_be_anything(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, note=np.array(["text"]), objects=np.array([{}], dtype=object))
    np.testing.assert_array_equal(open_arrays(tmp_path / "a.npz")["x"], X)


def test_a_member_does_not_reach_into_the_next(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-8])
        archive.writestr("next.npy", bytes(1000))
    with pytest.raises(FileError, match=r"x \(2, 3, 4\) needs 96 bytes and has 88"):
        open_arrays(tmp_path / "a.npz")["x"]


def test_encrypted_members_are_refused(tmp_path):
    path = save(tmp_path / "a.npz", X)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.getinfo("x.npy").header_offset
    content[first + 6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="encrypted"):
        open_arrays(path)["x"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("what", ["fifo", "link to a fifo", "device", "link to itself", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path, suffix, what):
    path = tmp_path / f"a{suffix}"
    if "fifo" in what:
        os.mkfifo(tmp_path / "fifo")
    if what == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link to itself": path}.get(what, tmp_path / "fifo"))
    with pytest.raises(FileError, match=rf"a{suffix} cannot be read \("):
        open_arrays(path)
    with pytest.raises(FileError, match=rf"a{suffix} cannot be read \("):
        clearhead.load_watch(path)


def bomb(path, shape, count, method=zipfile.ZIP_DEFLATED):
    """An archive whose one member has a header for a shape, and `count` zeros behind it."""
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"shape": shape, "fortran_order": False, "descr": "<f8"})
        for _ in range(count >> 20):
            member.write(bytes(1 << 20))
    return path


def test_sizes_are_looked_at_before_anything_is_inflated(tmp_path):
    for method, message in (
        (zipfile.ZIP_DEFLATED, r"x \(2, 3\) goes on after its 48 bytes"),
        (zipfile.ZIP_BZIP2, "numpy.savez_compressed never uses"),
        (zipfile.ZIP_LZMA, "numpy.savez_compressed never uses"),
    ):
        path = bomb(tmp_path / "a.npz", (2, 3), 1 << 26, method)
        tracemalloc.start()
        with pytest.raises(FileError, match=message):
            open_arrays(path)["x"]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 1 << 22


def test_a_member_that_claims_more_than_its_bytes_can_hold_is_refused(tmp_path):
    path = bomb(tmp_path / "a.npz", (1 << 29,), 1 << 20)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24  # what it is inflated, in the directory
    content[place : place + 4] = (4_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(FileError, match="claims to hold 4000000000 bytes"):
        open_arrays(path)["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells how much memory is free")
def test_more_than_the_free_memory_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "RATIO", {zipfile.ZIP_DEFLATED: 1 << 60})
    path = bomb(tmp_path / "a.npz", (1 << 50,), 1 << 20)
    info = zipfile.ZipInfo("x.npy")
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[0]
    info.file_size = 1 << 60
    with pytest.raises(FileError, match=r"a\.npz needs 9,007,199,254,740,992 bytes of memory"):
        reading._decompressed(path, "x", info)


SPECS = {
    "output": Spec((2, 3, 4), np.dtype("float32")),
    "lse": Spec((2, 3), np.dtype("float32")),
    "weights": Spec((1, 7, 3), np.dtype("float64")),
    "empty": Spec((0, 3), np.dtype("float64")),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_several_arrays_are_written_as_other_libraries_read_them(tmp_path, suffix):
    expected = {n: np.random.default_rng(1).standard_normal(s.shape).astype(s.dtype) for n, s in SPECS.items()}
    with new_file(tmp_path / f"a{suffix}", SPECS) as arrays:
        for name in reversed(SPECS):
            assert arrays[name].flags.aligned
            arrays[name][...] = expected[name]
    assert os.listdir(tmp_path) == [f"a{suffix}"]
    read, own = load(tmp_path / f"a{suffix}"), open_arrays(tmp_path / f"a{suffix}")
    assert list(read) == list(SPECS) or suffix == ".safetensors"
    for name in SPECS:
        assert read[name].dtype == SPECS[name].dtype
        np.testing.assert_array_equal(read[name], expected[name])
        np.testing.assert_array_equal(own[name], expected[name])
        assert isinstance(own[name].base, mmap)
    if suffix == ".npz":
        assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_one_array_is_written_as_npy(tmp_path, shape):
    with new_file(tmp_path / "a.npy", {"output": Spec(shape, np.dtype("float64"))}) as arrays:
        arrays["output"][...] = 7
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.full(shape, 7.0))


def test_npy_holds_one_array_only(tmp_path):
    with (
        pytest.raises(FileError, match=r"a\.npy can hold one array, not output, lse"),
        new_file(tmp_path / "a.npy", {n: SPECS[n] for n in ("output", "lse")}),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_nothing_is_seen_before_the_end(tmp_path):
    with new_file(tmp_path / "a.npz", SPECS):
        assert not (tmp_path / "a.npz").exists()
        assert all(name.startswith(".") for name in os.listdir(tmp_path))


def fail(array, failure):
    array[...] = 1
    raise failure


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
@pytest.mark.parametrize("before", [None, b"precious"])
def test_failure_leaves_everything_as_it_was(tmp_path, suffix, failure, before):
    path = tmp_path / f"a{suffix}"
    if before:
        path.write_bytes(before)
    with pytest.raises(failure), new_file(path, {"output": SPECS["output"]}, force=True) as arrays:
        fail(arrays["output"], failure)
    assert os.listdir(tmp_path) == ([path.name] if before else [])
    assert not before or path.read_bytes() == before


def test_an_existing_file_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"precious")
    with (
        pytest.raises(
            FileError,
            match=r"a\.npy exists already: choose another name, or replace it with force=True",
        ),
        new_file(path, {"output": SPECS["output"]}),
    ):
        pass
    assert path.read_bytes() == b"precious"
    with new_file(path, {"output": SPECS["output"]}, force=True) as arrays:
        arrays["output"][...] = X
    np.testing.assert_array_equal(np.load(path), X)


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(FileError, match="exists already"), new_file(path, {"output": SPECS["output"]}):
        path.write_bytes(b"precious")
    assert os.listdir(tmp_path) == ["a.npy"]
    assert path.read_bytes() == b"precious"


def test_a_link_keeps_pointing_to_the_new_file(tmp_path):
    target, link = tmp_path / "target.npy", tmp_path / "link.npy"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with new_file(link, {"output": SPECS["output"]}, force=True) as arrays:
        arrays["output"][...] = X
    assert link.is_symlink()
    np.testing.assert_array_equal(np.load(target), X)


@pytest.mark.parametrize(("name", "reason"), [("gone/a.npy", "No such file"), ("file/a.npy", "Not a directory")])
def test_places_that_cannot_hold_a_file_are_named(tmp_path, name, reason):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(FileError, match=rf"{name} cannot be written \({reason}"),
        new_file(tmp_path / name, {"output": SPECS["output"]}),
    ):
        pass
    with pytest.raises(FileError, match="is a directory"), new_file(tmp_path, {"output": SPECS["output"]}):
        pass
    with (
        pytest.raises(FileError, match="no suffix that names a format"),
        new_file(tmp_path / "a.txt", {"output": SPECS["output"]}),
    ):
        pass
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="permissions do not bind this user")
def test_a_directory_without_write_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(FileError, match="Permission denied"),
        new_file(tmp_path / "a.npy", {"output": SPECS["output"]}),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="space is claimed by writing elsewhere")
def test_a_full_disk_is_noticed_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(FileError, match=r"No space left on device.*free space"),
        new_file(tmp_path / "a.npy", {"output": SPECS["output"]}),
    ):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_file_size_limit_kills_no_process(tmp_path):
    code = """if True:
        import resource, sys, numpy as np
        from clearhead.files import Spec, new_file
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with new_file(sys.argv[1], {"output": Spec((1 << 20,), np.dtype("float32"))}) as arrays:
            arrays["output"][...] = 1
    """
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.npz"], capture_output=True, text=True)
    assert "FileError" in done.stderr
    assert "File too large" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
@pytest.mark.parametrize("what", ["fifo", "device", "link to itself", "a name with a null", "too long", "below a link"])
def test_what_no_file_can_replace_is_named(tmp_path, what):
    path = tmp_path / "a.npy"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/null")
    elif what == "link to itself":
        path.symlink_to(path)
    elif what == "below a link":
        (tmp_path / "link").symlink_to(tmp_path / "link")
        path = tmp_path / "link" / "a.npy"
    else:
        path = tmp_path / {"a name with a null": "a\0.npy", "too long": "a" * 300 + ".npy"}[what]
    before = sorted(os.listdir(tmp_path))
    message = r"a.*npy (cannot be written|is not a regular file|is a circle of links)"
    with pytest.raises(FileError, match=message), new_file(path, {"output": SPECS["output"]}, force=True):
        pytest.fail("the block must not run")
    assert sorted(os.listdir(tmp_path)) == before
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
def test_an_error_never_quotes_a_file_at_length(tmp_path, version):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), \n" + bytes(9000)
    size = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + version + size + header + bytes(24))
    with pytest.raises(FileError, match=r"a\.npz") as caught:
        _ = open_arrays(tmp_path / "a.npz")["x"]
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
