"""Files of vectors are read as they are meant and tell what had to be decided; all others end in one FileError."""

import errno
import io
import os
import random
import re
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clearhead.errors import FileError
from clearhead.explain import explain
from clearhead.explain.table import MOST_NUMBERS, NUMBER_PATTERN
from clearhead.explain.vectors import LONGEST_LINE, MOST_TEXT, read_vectors


def reading(tmp_path, content, name="x.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_vectors(path)


# tables


@pytest.mark.parametrize(
    ("content", "vectors", "names"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]], None),
        ("1,0\n0,1\n", [[1, 0], [0, 1]], None),
        ("a,b\n1,2\n", [[1, 2]], None),
        ("the,1,2\nriver,3,4\n", [[1, 2], [3, 4]], ["the", "river"]),
        ("word,a,b\n1984,1,2\nnan,3,4\n", [[1, 2], [3, 4]], ["1984", "nan"]),
        (",0,1\n0,1,2\n1,3,4\n", [[1, 2], [3, 4]], ["0", "1"]),
        ('\ufeff"a,b", 1 ,2e3\r\n\r\n', [[1, 2000]], ["a,b"]),
        ("5\n", [[5]], None),
        ("1\t2\n3\t4\n", [[1, 2], [3, 4]], None),
        ("word\td 0\nthe\t1\nNew York\t2\n", [[1], [2]], ["the", "New York"]),
        ("1;2\n3;4\n", [[1, 2], [3, 4]], None),
        ("the;1,5;2\nriver;,25;-3,0e1\n", [[1.5, 2], [0.25, -30]], ["the", "river"]),
        ("a;1,2\nb;3,4\n", [[1.2], [3.4]], ["a", "b"]),
        ("1,5 2,5\n3 4\n", [[1.5, 2.5], [3, 4]], None),
        ("1.000e+00 2\n-3.5 .5\n", [[1, 2], [-3.5, 0.5]], None),
        ("   1.0     2.0\n -30.25   4.0 \n", [[1, 2], [-30.25, 4]], None),
        (', 0.5 1\nthe 2 3\n; 4 5\n" 6 7\n', [[0.5, 1], [2, 3], [4, 5], [6, 7]], [",", "the", ";", '"']),
        ('"New York" 1 2\n"a ""b""" 3 4\n', [[1, 2], [3, 4]], ["New York", 'a "b"']),
        ("# saved\n1,2\n  # and\n3,5\n", [[1, 2], [3, 5]], None),
        ('"#",1\n"#river",2\n', [[1], [2]], ["#", "#river"]),
        ("C#,1\nC++,2\n", [[1], [2]], ["C#", "C++"]),
        ("−1,+2\n1e−3,−.5\n", [[-1, 2], [0.001, -0.5]], None),
        ("1,2\r3,5\r", [[1, 2], [3, 5]], None),
        ("\n\n1,2\n\n3,5\n\n", [[1, 2], [3, 5]], None),
        (",,\n1,2,3\n4,5,7\n,,\n,,\n", [[1, 2, 3], [4, 5, 7]], None),
        ('"the\nriver",1,2\n', [[1, 2]], ["the\nriver"]),
        ("V1 V2\n1 0.5 0.25\n2 1.5 2\n", [[0.5, 0.25], [1.5, 2]], ["1", "2"]),
        ("a b\nthe 0.5 0.25\n", [[0.5, 0.25]], ["the"]),
        ("     0    1\n0  1.0  0.0\n1  0.0  1.0\n", [[1, 0], [0, 1]], ["0", "1"]),
        ("[CLS],1,2\n[SEP],3,4\n", [[1, 2], [3, 4]], ["[CLS]", "[SEP]"]),
        ("[ 1 2\n] 3 4\n", [[1, 2], [3, 4]], ["[", "]"]),
        ('1984,1\n"2,001",2\nx,3\n'.replace("1984", "MCM"), [[1], [2], [3]], ["MCM", "2,001", "x"]),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".CSV"])
def test_tables_are_read_whatever_separates_their_cells(tmp_path, content, vectors, names, suffix):
    read = reading(tmp_path, content, f"x{suffix}")
    assert read.x.tolist() == vectors
    assert read.names == names
    assert read.x.dtype == np.float64


@pytest.mark.parametrize(
    ("content", "vectors", "names", "said"),
    [
        (
            "0,1\n1.0,0.0\n0.0,1.0\n",
            [[1, 0], [0, 1]],
            None,
            "Line 1 counts 0 to 1 above numbers with decimal points and",
        ),
        ("0 1\n1e0 0\n0 1e0\n", [[1, 0], [0, 1]], None, "is taken as a header: 0.0 would make it a vector"),
        ("0;1\n1,5;0\n0;2,5\n", [[1.5, 0], [0, 2.5]], None, "is taken as a header"),
        (
            "0,1\n1,0\n",
            [[0, 1], [1, 0]],
            None,
            "Line 1 counts 0 to 1 and is read as a vector: if it is a header, delete",
        ),
        ("0,1\n1.0,0.0\n0,1\n", [[0, 1], [1, 0], [0, 1]], None, "is read as a vector"),
        ("1,2\n1.5,0.5\n", [[1, 2], [1.5, 0.5]], None, "Line 1 counts 1 to 2 and is read as a vector"),
        ("0\n1.5\n", [[0], [1.5]], None, "Line 1 counts 0 to 0 and is read as a vector"),
        ("0,1,2\nthe,1.5,2\n", [[1.5, 2]], ["the"], "Line 1 counts 0 to 2 above names and is taken as a header"),
        ("# x\n\n0,1\n1,0\n", [[0, 1], [1, 0]], None, "Line 3 counts"),
        ("word,0,1\nthe,1,2\n", [[1, 2]], ["the"], "Line 1, 'word' and numbers that count, is taken as a header"),
        ("Token,1,2\nthe,1,2\n", [[1, 2]], ["the"], "is taken as a header, not as a vector"),
        ("word,0\nthe,1\n", [[0], [1]], ["word", "the"], "Line 1 is read as a vector named 'word'"),
        ("the,0,1\nriver,0.5,1\n", [[0, 1], [0.5, 1]], ["the", "river"], "Line 1 is read as a vector named 'the'"),
        (",0.5,1\nthe,1,2\n", [[0.5, 1], [1, 2]], ["", "the"], "Line 1 is read as a vector with an empty name"),
        ("id,a\n1,2\n2,3\n", [[2], [3]], ["1", "2"], "Column 1 holds numbers and is taken as names, because line 1"),
        ("0,1.5\n1,2.5\n", [[0, 1.5], [1, 2.5]], None, "Column 1 counts 0 to 1 and is read as numbers of the vectors"),
        ("1,5;2\n3;4\n", [[1.5, 2], [3, 4]], None, "Commas are taken as decimal points: 1,5 is 1.5"),
        ("1,5\n2,5\n", [[1, 5], [2, 5]], None, "1,5 is read as two numbers: if commas are decimal points, write 1.5"),
        ("1,2.5 # first\n3,4\n", [[1, 2.5], [3, 4]], None, "What follows # is left out, as '# first'"),
        ("0.5 2 # a,b\n3 4\n", [[0.5, 2], [3, 4]], None, "What follows # is left out"),
        ("#the,1\nriver,2\n", [[2]], ["river"], "Line 1 begins with # and is taken as a comment"),
    ],
)
def test_what_could_be_read_otherwise_is_said(tmp_path, content, vectors, names, said):
    read = reading(tmp_path, content)
    assert read.x.tolist() == vectors
    assert read.names == names
    assert said in " ".join(read.notes)


@pytest.mark.parametrize(
    "content",
    [
        "1.5|0\n0|1\n",
        "| the | 1 | 2 |\n|---|---:|:-:|\n| river | 3 | 4 |\n",
        "1,0\n0,1\n",
        "0,1\n",
        "the,1,2\nriver,3,4\n",
        "a,b\n1,2\n",
        "0.0,1\n1.5,2\n",
        "0\n1\n",
    ],
)
def test_what_has_one_meaning_needs_no_note(tmp_path, content):
    assert reading(tmp_path, content).notes == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no vectors"),
        (b"\n\n", "holds no vectors"),
        (b"# 1,2\n", "holds no vectors"),
        (b",,\n,,\n", "holds no vectors"),
        (b"a,b\n", "no vectors but a header"),
        (b"the\nriver\n", "line 2 holds a name and no numbers"),
        (b"1,2\n\n3\n", "line 3 has 1 column and line 1 has 2 (read as comma-separated): give every line as many"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 columns and line 1 has 2"),
        (b"vectors\n1,2\n", "line 2 has 2 columns and line 1 has 1 (read as comma-separated)"),
        (b"the,1\nriver,x\n", "line 2, column 2: 'x' is not a number (read as comma-separated, 2 columns): correct it"),
        (b"the 1 2\nriver 1 x\n", "line 2, column 3: 'x' is not a number (read as space-separated, 3 columns)"),
        (b"the\t1\nriver\tx\n", "(read as tab-separated, 2 columns)"),
        (b"the;1,5\nriver;x\n", "(read as semicolon-separated with decimal commas, 2 columns)"),
        (b"1,2\n3,\n", "line 2, column 2: '' is not a number"),
        (b"1,2\n,\n3,4\n", "line 2 begins with ''"),
        (b"1,2\nx,4\n", "line 2 begins with 'x' and line 1 with '1' (read as comma-separated)"),
        (b"1,2\n3,nan\n", "line 2, column 2: 'nan' is not finite"),
        (b"1,-inf\n", "line 1, column 2: '-inf' is not finite"),
        (b"1,1e999\n", "column 2: '1e999' is not finite"),
        (
            b"1,2 two # 2\n",
            "column 2: '2 two # 2' is not a number (read as comma-separated, 2 columns): put the comment on",
        ),
        (b"1,2#two\n", "column 2: '2#two' is not a number"),
        (b"1,234.5,2\n3,4\n", "if 1,234 is one number, write 1234; else give every line as many"),
        (b'"1,234.5",2\n3,4\n', "line 1 begins with '1,234.5'"),
        (b'3,"1,234.5"\n3,4\n', "'1,234.5' is not a number (read as comma-separated, 2 columns): write it without"),
        (b"'a, b',1,2\n'c',3,4\n", 'put a name that holds a separator in double quotes, as "a, b"'),
        (b"[1 2\n[3 4\n", "begins with '[1', which is not a number"),
        (b"1_000,2\n", "begins with '1_000', which is not a number"),
        (b"1.000,5;2\n", "begins with '1.000,5', which is not a number"),
        ("１,2\n".encode(), "'１'"),
        (b'"1,2\n3', "not comma-separated (unexpected end of data): check its quotes"),
        (b"the,1\n\xe9t\xe9,2\n", "line 2 is not UTF-8 text: save it as UTF-8"),
        (b"1,2\n3,\x00\n", "line 2 holds a NUL byte"),
        ("1,2\n".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        ("1,2\n".encode("utf-16-be"), "NUL byte"),
        ("1,2\n".encode("utf-32"), "is UTF-32 text"),
        (b"\x93NUMPY\x01\x00", "is what numpy.save writes: name it .npy"),
        (b"PK\x03\x04\x14\x00", "is a zip archive, as spreadsheets are"),
        (b"[[1. 2.]\n [3. 4.]", "line 1 begins like numpy's text of an array, but"),
        (b"\n[[[1. 2.]]]", "line 2 begins like numpy's text of an array, but"),
        (b"array([[1., 2.]", "begins like numpy's text of an array, but"),
        (b"[[0. 1. ... 8. 9.]\n ...\n [0. 1. ... 8. 9.]]", "leaves numbers out (...)"),
        (b"[[1. 2.]\n [3.]]", "line 2 has 1 column and line 1 has 2 (read as numpy's text of an array)"),
        (
            b"[[1. 2.]\n [3. nan]]",
            "line 2, column 2: 'nan' is not finite (read as numpy's text of an array, 2 columns)",
        ),
        (b"[[1, 2],\n [3, ]]", "line 2, column 2: '' is not a number"),
        (b"[[True False]]", "'True' is not a number"),
        (b"[]", "holds no vectors"),
    ],
)
def test_what_is_no_table_names_file_line_and_what_was_read(tmp_path, content, said):
    with pytest.raises(FileError, match=re.escape(said)) as raised:
        reading(tmp_path, content)
    assert str(tmp_path / "x.csv") in str(raised.value)
    assert "\n" not in str(raised.value)


# numpy's text


@pytest.mark.parametrize(
    ("content", "vectors"),
    [
        ("[[1. 0.]\n [0. 1.]]", [[1, 0], [0, 1]]),
        ("  [[ 1.0e+00 -2.5e-01]\n   [ 0.0e+00  1.0e+00]]\n\n", [[1, -0.25], [0, 1]]),
        ("array([[1., 0.],\n       [0., 1.]])\n", [[1, 0], [0, 1]]),
        ("x = np.array([[1, 0],\n [0, 1]], dtype=float32)", [[1, 0], [0, 1]]),
        ("tensor([[1., 0.],\n        [0., 1.]], device='cuda:0')", [[1, 0], [0, 1]]),
        ("[1. 2.]\n[3. 5.]\n", [[1, 2], [3, 5]]),
        ("[1. 2.\n 3.]\n", [[1, 2, 3]]),
        ("[[1, 2], [3, 5]]", [[1, 2], [3, 5]]),
        ("[[0 1]\n [1 0]]", [[0, 1], [1, 0]]),
    ],
)
def test_numpys_text_is_read(tmp_path, content, vectors):
    read = reading(tmp_path, content, "x.txt")
    assert (read.x.tolist(), read.names, read.notes) == (vectors, None, ())


NUMBERS = st.floats(-1e6, 1e6) | st.integers(-9, 9).map(float) | st.sampled_from([0.0, -0.0, 1e-300, 1e300, 5e-324])
MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=NUMBERS)
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters='\0\n\r"'), min_size=1, max_size=6).filter(
    lambda name: name.strip() == name and not re.match(r"[\d.+\-−#\[,]|nan|inf", name, re.IGNORECASE)
)


def written(x, form, names):
    """A matrix as another program writes it."""
    cells = [[repr(float(value)) for value in row] for row in x]
    if form == "decimal comma":
        cells = [[cell.replace(".", ",") for cell in row] for row in cells]
    separator = {"comma": ",", "tab": "\t", "blank": " ", "semicolon": ";", "decimal comma": ";"}[form]
    if names:
        cells = [[f'"{name}"', *row] for name, row in zip(names, cells, strict=True)]
    return "".join(separator.join(row) + "\n" for row in cells)


@given(MATRICES, st.sampled_from(["comma", "tab", "blank", "semicolon", "decimal comma"]), st.data())
def test_every_number_is_read_back(tmp_path_factory, x, form, data):
    names = data.draw(st.none() | st.lists(NAMES, min_size=len(x), max_size=len(x)))
    assume(form != "decimal comma" or names or x.shape[1] > 1)  # one column with commas is two columns between commas
    read = reading(tmp_path_factory.mktemp("x"), written(x, form, names))
    np.testing.assert_array_equal(read.x, x)
    assert read.names == names


@given(MATRICES, st.sampled_from([str, repr, "savetxt", "list", "columns"]))
def test_every_number_of_numpys_text_is_read_back(tmp_path_factory, x, form):
    if form in ("savetxt", "columns"):
        to = io.StringIO()
        np.savetxt(to, x, fmt="%.17g" if form == "savetxt" else "%26.17e", header="made by numpy")
        text = to.getvalue()
    else:
        with np.printoptions(precision=17, floatmode="maxprec", suppress=False, threshold=10**6):
            text = str(x.tolist()) if form == "list" else form(x)
    read = reading(tmp_path_factory.mktemp("x"), text, "x.txt")
    np.testing.assert_array_equal(read.x, x)
    assert read.names is None


@given(st.text("0123456789+-.eE,_ naif", max_size=8))
def test_a_number_is_what_python_says_and_less(cell):
    if NUMBER_PATTERN.fullmatch(cell):
        float(cell)
    elif not re.search(r"[_\s]", cell):
        with pytest.raises(ValueError, match="could not convert"):
            float(cell)


# npy


@pytest.mark.parametrize("dtype", ["<i2", ">i8", "u1", "<f2", ">f4", "<f8", np.longdouble])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_read_in_every_real_dtype_and_order(tmp_path, dtype, order):
    x = np.arange(6).reshape(3, 2).astype(dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    read = read_vectors(tmp_path / "x.npy")
    assert explain(read.x, read.names).x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (read.names, read.notes) == (None, ())


def npy(shape, descr="<f8", order="False", data=b"\0" * 48, version=(1, 0)):
    """The bytes of a .npy file whose header claims what it likes."""
    head = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(head))
    return b"\x93NUMPY" + bytes(version) + length + head + data


HOSTILE = {
    "empty": b"",
    "no array": b"not an array at all",
    "cut": npy("(3, 2)")[:-1],
    "cut header": npy("(3, 2)")[:40],
    "magic alone": b"\x93NUMPY",
    "huge": npy("(1000000000000, 1000000)"),
    "beyond 64 bits": npy("(100000000000000000000000000, 2)"),
    "overflowing": npy("(4294967296, 4294967296)"),
    "negative": npy("(-3, 2)"),
    "both negative": npy("(-3, -2)"),
    "shape of texts": npy("('a', 2)"),
    "shape of floats": npy("(3.0, 2)"),
    "shape of truth": npy("(True, 2)"),
    "no axes": npy("()"),
    "one axis": npy("(6,)"),
    "three axes": npy("(3, 2, 1)"),
    "no items": npy("(0, 2)"),
    "no dims": npy("(2, 0)"),
    "objects": npy("(3, 2)", "|O"),
    "texts": npy("(3, 2)", "<U2"),
    "bytes": npy("(3, 2)", "|S8"),
    "complex": npy("(3, 1)", "<c16"),
    "truth": npy("(3, 2)", "|b1"),
    "dates": npy("(3, 2)", "<M8[s]"),
    "void": npy("(3, 2)", "|V8"),
    "nothing wide": npy("(3, 2)", "|V0"),
    "records": npy("(3,)", [("a", "<f8"), ("b", "<f8")]),
    "no dtype": npy("(3, 2)", "nonsense"),
    "order": npy("(3, 2)", order="'no'"),
    "deep header": npy("(" * 2000 + ")" * 2000),
    "call": npy("__import__('os').getpid()"),
    "bad escape": npy(r"'\d'"),
    "long header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
    "version 9": npy("(3, 2)", version=(9, 9)),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94.",
    "zip": b"PK\x03\x04" + bytes(60),
    "empty zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_npy_is_one_error(tmp_path, kind):
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=r"x\.npy"):
            reading(tmp_path, HOSTILE[kind], "x.npy")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_sparse_npy_of_any_claimed_size_costs_nothing(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(npy(f"(2048, {1 << 20})", data=b""))
    os.truncate(path, path.stat().st_size + (1 << 34))
    started = time.monotonic()
    with pytest.raises(FileError, match="2048 vectors of 1048576 numbers: keep at most 131072 vectors"):
        read_vectors(path)
    assert time.monotonic() - started < 5


def test_several_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", np.eye(2), np.eye(2))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(FileError, match="several arrays"):
        read_vectors(tmp_path / "x.npy")


# files that are none


@pytest.mark.parametrize("name", ["missing.csv", "missing.npy", "x.bin", "x", "folder.csv", "folder.npy", "a\0b.csv"])
def test_paths_without_a_file_are_refused(tmp_path, name):
    for suffix in ("csv", "npy"):
        (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(FileError) as raised:
        read_vectors(tmp_path / name)
    assert name in str(raised.value)


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.npy", "loop.csv", "loop.npy", "device.csv"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    else:
        path.symlink_to(path if name.startswith("loop") else "/dev/zero")
    with pytest.raises(FileError, match=re.escape(name)):
        read_vectors(path)


@pytest.mark.parametrize("name", ["x.csv", "x.npy"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch, name):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    (tmp_path / name).touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FileError, match=rf"{re.escape(name)} cannot be read \(Permission denied\)"):
        read_vectors(tmp_path / name)


@pytest.mark.parametrize(
    ("unit", "size", "said"),
    [
        (b"1 ", LONGEST_LINE + 2, "line 1 is longer"),
        (b"1,", LONGEST_LINE + 2, "line 1 is longer"),
        (b"[", LONGEST_LINE + 2, "line 1 is longer"),
        (b"the\n", 1 << 21, "more than 262144 lines"),
        (b"\n", 1 << 20, "more than 262144 lines"),
        (b"\0", MOST_TEXT + 1, "MiB of text"),
    ],
)
def test_endless_text_is_refused_before_it_is_kept(tmp_path, unit, size, said):
    path = tmp_path / "x.txt"
    with path.open("wb") as file:
        if unit == b"\0":
            file.truncate(size)
        else:
            file.write(unit * (size // len(unit)))
    with pytest.raises(FileError, match=re.escape(said)):
        read_vectors(path)


@pytest.mark.parametrize(
    "content", ["1 2 3 4\n5 6 7 8\n", "[[1 2 3 4]\n [5 6 7 8]]", "[[1,2,3,4],[5,6,7,8]]", "1,2,3,4\n5,6,7,8\n"]
)
def test_more_numbers_than_can_be_explained_are_not_kept(tmp_path, content, monkeypatch):
    monkeypatch.setattr("clearhead.explain.table.MOST_NUMBERS", 3)
    with pytest.raises(FileError, match="more than 3 numbers"):
        reading(tmp_path, content)
    assert MOST_NUMBERS == 1 << 24


@pytest.mark.parametrize("content", ["1,2\n" * 50, "[[1 2]\n" + " [1 2]\n" * 49 + "]"])
def test_more_vectors_than_can_be_explained_are_not_kept(tmp_path, content, monkeypatch):
    monkeypatch.setattr("clearhead.explain.table.MOST_VECTORS", 48)
    with pytest.raises(FileError, match="more than 48 vectors"):
        reading(tmp_path, content)


# fuzz

SEEDS = [
    b"0,1\n1.0,0.0\n0.0,1.0\n", b"word;a;b\nthe;1,5;2\nriver;3;4,25\n",
    b"the 1 2\nriver 3 4\n", b"[[1. 0.]\n [0. 1.]]\n",
    b"array([[1., 0.],\n       [0., 1.]], dtype=float32)",
    b"# a\n\xef\xbb\xbf1\t2\r\n\r\n3\t4", b'"a ""b""",1\n"c\nd",2\n',
    "−1,２\n河,3\n".encode(), npy("(3, 2)"), npy("(2, 3)", ">f8", "True"), "1,2\n".encode("utf-16"),
]  # fmt: skip
PIECES = [
    b"\0",
    b"\n",
    b"\r",
    b",",
    b";",
    b"\t",
    b" ",
    b'"',
    b"#",
    b"[",
    b"]",
    b"1",
    b".",
    b"e",
    b"-",
    b"nan",
    b"...",
    b"\xff",
]


def mutated(rng: random.Random) -> bytes:
    """A valid file with a few faults, or noise."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(200))
    content = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(4):
            case 0:
                content[at:at] = rng.choice(PIECES) * rng.choice([1, 1, 1, 2, 50])
            case 1:
                del content[at : at + rng.choice([1, 1, 5])]
            case 2:
                content[at : at + 1] = rng.randbytes(1)
            case 3:
                content[at:at] = rng.choice(SEEDS)[: rng.randrange(30)]
    return bytes(content)


@pytest.mark.filterwarnings("error")
def test_mutated_files_are_read_or_refused(tmp_path):
    rng = random.Random(int(os.environ.get("FUZZ_SEED", "0")))  # noqa: S311
    read, messages = 0, []
    for _ in range(int(os.environ.get("FUZZ_CASES", "3000"))):
        content, name = mutated(rng), rng.choice(["x.csv", "x.txt", "x.npy"])
        try:
            found = reading(tmp_path, content, name)
        except FileError as error:
            messages.append(str(error))
            continue
        read += 1
        assert found.x.ndim == 2, content
        assert found.x.size, content
        assert found.names is None or len(found.names) == len(found.x)
        assert name == "x.npy" or np.isfinite(found.x).all(), content
    assert read > 100
    assert len(messages) > 100
    assert not [message for message in messages if "\n" in message]
