"""Compiled kernels on disk: found again, never trusted blindly, never half written."""

import os
import shutil
import subprocess
import sys
import warnings
from contextlib import nullcontext
from importlib import util
from pathlib import Path

import pytest

from clearhead import settings
from clearhead.gpu.programs import Program
from clearhead.gpu.ptx import ptx
from clearhead.gpu.tile import TILES
from clearhead.kernels.abi.tiles import F32, F64, tile_for
from clearhead.machine import compile as machine
from clearhead.machine import fingerprint, store
from clearhead.machine.target import target, target_for

CALL = """
import sys, warnings, numpy as np
warnings.simplefilter("always")
import clearhead
from clearhead.machine import compile as machine
x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
y = clearhead.self_attention(x)
print(machine.compilations, y.tobytes().hex()[:64])
"""


def process(place: Path, code: str = CALL, **environment: str) -> subprocess.Popen[str]:
    """A fresh Python on a cache directory."""
    env = {**os.environ, "CLEARHEAD_CACHE_DIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def outcome(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Compilations, bits and what was said on standard error."""
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    compilations, bits = out.split()
    return int(compilations), bits, err


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The cache directory that a first process made and put its one kernel in."""
    place = tmp_path_factory.mktemp("first") / "cache"
    assert outcome(process(place))[0] == 1
    return place


@pytest.fixture
def cache(filled, tmp_path):
    """A private cache directory that holds one kernel."""
    return shutil.copytree(filled, tmp_path / "cache")


def entry(place: Path) -> Path:
    """The one kernel in a cache directory."""
    (only,) = place.iterdir()
    return only


def test_a_kernel_is_compiled_once_and_then_found(cache):
    first = outcome(process(cache))
    assert first[0] == 0
    assert first[2] == ""
    assert cache.stat().st_mode & 0o777 == 0o700
    assert entry(cache).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["first byte", "checksum", "middle", "last byte", "truncated", "empty", "foreign"])
def test_a_damaged_entry_is_reported_compiled_again_and_replaced(cache, damage):
    whole = entry(cache).read_bytes()
    where = {"first byte": 0, "checksum": len(store.MAGIC) + 3, "middle": len(whole) // 2, "last byte": len(whole) - 1}
    if damage in where:
        broken = bytearray(whole)
        broken[where[damage]] ^= 1
    else:
        broken = {"truncated": whole[: len(whole) // 3], "empty": b"", "foreign": b"\x7fELF" + bytes(500)}[damage]
    entry(cache).write_bytes(broken)
    compilations, bits, said = outcome(process(cache))
    assert compilations == 1
    assert "is not what clearhead wrote there" in said
    assert entry(cache).read_bytes() == whole
    assert outcome(process(cache)) == (0, bits, "")


def test_an_entry_under_another_name_is_not_trusted(cache, monkeypatch):
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(cache))
    right = entry(cache)
    other = cache / "forward-f32-avx512-0000"
    other.write_bytes(right.read_bytes())
    with pytest.warns(store.CacheWarning, match="not what clearhead wrote"):
        assert store.load_code(other.name) is None
    assert not other.exists()
    assert store.load_code(right.name)


def test_an_entry_that_others_can_write_is_not_trusted(cache):
    entry(cache).chmod(0o666)
    compilations, _, said = outcome(process(cache))
    assert compilations == 1
    assert "is not what clearhead wrote there" in said
    assert entry(cache).stat().st_mode & 0o777 == 0o600


def test_a_directory_that_others_can_write_is_refused(tmp_path):
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    for _ in range(2):
        compilations, _, said = outcome(process(place))
        assert compilations == 1
        assert "chmod 700" in said
    assert list(place.iterdir()) == []


def test_a_link_to_a_directory_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert "chmod 700" in outcome(process(tmp_path / "link"))[2]
    assert list((tmp_path / "open").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_someone_else_is_refused(tmp_path):
    place = tmp_path / "theirs"
    place.mkdir(mode=0o700)
    os.chown(place, 12345, 12345)
    assert "belongs to another user" in outcome(process(place))[2]
    assert list(place.iterdir()) == []


def test_where_nothing_can_be_kept_the_call_still_succeeds(tmp_path):
    (tmp_path / "file").write_text("in the way")
    compilations, _, said = outcome(process(tmp_path / "file" / "cache"))
    assert compilations == 1
    assert "cannot be stored" in said
    assert "CLEARHEAD_CACHE_DIR" in said


def test_the_cache_can_be_switched_off(tmp_path):
    assert outcome(process(tmp_path / "cache", CLEARHEAD_CACHE="0"))[0] == 1
    assert not (tmp_path / "cache").exists()


def test_many_processes_may_start_at_once(tmp_path):
    running = [process(tmp_path / "cache") for _ in range(6)]
    outcomes = [outcome(one) for one in running]
    assert len({bits for _, bits, _ in outcomes}) == 1
    assert all(said == "" for _, _, said in outcomes)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]
    assert outcome(process(tmp_path / "cache"))[0] == 0


def test_what_a_killed_process_left_behind_is_harmless(cache):
    (cache / ".writing-abc").write_bytes(b"half a ker")
    assert outcome(process(cache))[0] == 0


def test_a_failing_disk_leaves_no_half_entry(cache, monkeypatch):
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(cache))
    before = {path: path.read_bytes() for path in cache.iterdir()}

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(store.CacheWarning, match="No space left"):
        store.save_code("forward-new", b"code")
    assert {path: path.read_bytes() for path in cache.iterdir()} == before


def test_once_there_are_too_many_those_used_longest_ago_go(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(store, "MOST_ENTRIES", 8)
    tmp_path.chmod(0o700)
    others = [tmp_path / name for name in ("notes.txt", "forward-f32-avx2", f"package-branch-{'a' * 40}")]
    for other in others:
        other.write_text("somebody else's")
        os.utime(other, (0, 0))
    keys = [f"forward-f32-avx2-{n:040x}" for n in range(9)]
    for n, key in enumerate(keys[:8]):
        store.save_code(key, key.encode())
        os.utime(tmp_path / key, (1000 + n, 1000 + n))
    assert store.load_code(keys[0]) == keys[0].encode()  # the oldest file, but used now
    store.save_code(keys[8], b"the ninth")
    kept = {path.name for path in tmp_path.iterdir()} - {other.name for other in others}
    assert kept == {keys[0], *keys[4:]}  # three quarters of eight
    assert all(other.exists() for other in others)


def test_what_another_process_has_removed_is_not_removed_twice_over(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MOST_ENTRIES", 8)
    for n in range(9):
        (tmp_path / f"forward-f32-avx2-{n:040x}").write_bytes(store.MAGIC)
        os.utime(tmp_path / f"forward-f32-avx2-{n:040x}", (1000 + n, 1000 + n))
    listed = os.scandir

    def listed_before_another_removes(folder):
        entries = list(listed(folder))
        monkeypatch.setattr(os, "scandir", listed)
        store.remove_oldest(folder)
        return nullcontext(entries)

    monkeypatch.setattr(os, "scandir", listed_before_another_removes)
    store.remove_oldest(tmp_path)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == list("345678")  # three quarters of eight


def test_entries_are_known_by_their_names(monkeypatch):
    stored = []
    monkeypatch.setattr(store, "save_code", lambda key, code: stored.append(key))
    monkeypatch.setattr(store, "load_code", lambda key: None)
    here = target()
    machine.stored_object(machine.KernelSpec("peak", tile_for(F32, here.vector_bits, here.registers), here))
    ptx.__wrapped__(Program("attention", TILES[0]))
    assert len(stored) == 2
    assert all(store.NAME.fullmatch(key) for key in stored)


def test_the_key_holds_everything_that_changes_code(monkeypatch):
    here = target()
    tile = tile_for(F32, here.vector_bits, here.registers)
    specs = [
        machine.KernelSpec("forward", tile, here),
        machine.KernelSpec("peak", tile, here),
        machine.KernelSpec("forward", tile_for(F64, here.vector_bits, here.registers), here),
        machine.KernelSpec("forward", tile_for(F32, 768 - here.vector_bits, 16), here),
        machine.KernelSpec("forward", tile, target_for("generic")),
    ]
    keys = [spec.key for spec in specs]
    monkeypatch.setattr(fingerprint, "fingerprint", lambda: "another")
    keys.append(specs[0].key)
    assert len(set(keys)) == len(keys)
    assert all("/" not in key and key == key.strip() for key in keys)


@pytest.fixture
def package(tmp_path):
    """A copy of the package's sources."""
    return shutil.copytree(fingerprint.PACKAGE, tmp_path / "clearhead", ignore=shutil.ignore_patterns("__pycache__"))


def written_by() -> list[str]:
    """Every module that a process which compiles a kernel of each kind has imported."""
    code = (
        "import sys, numpy as np, clearhead\n"
        "from clearhead.kernels import backward, decode, forward, peak, sweep\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'clearhead'))"
    )
    out, err = process(Path(os.environ["CLEARHEAD_CACHE_DIR"]), code).communicate(timeout=120)
    assert err == ""
    return out.split()


def test_an_edit_of_any_module_that_has_a_part_in_code_changes_the_key(package):
    before, _ = fingerprint.sources(package)
    assert before == fingerprint.sources(fingerprint.PACKAGE)[0]
    names = written_by()
    assert {"clearhead.rules.threefry", "clearhead.kernels.ir.math", "clearhead.machine.target"} <= set(names)
    for name in names:
        path = Path(sys.modules[name].__file__) if name in sys.modules else Path(util.find_spec(name).origin)
        copy = package / path.relative_to(fingerprint.PACKAGE)
        text = copy.read_bytes()
        copy.write_bytes(text + b"\n")
        assert fingerprint.sources(package)[0] != before, name
        copy.write_bytes(text)
    assert fingerprint.sources(package)[0] == before


def test_a_new_a_renamed_and_a_moved_module_change_the_key(package):
    found = {fingerprint.sources(package)[0]}
    (package / "kernels" / "unheard_of.py").write_text("X = 1\n")
    found.add(fingerprint.sources(package)[0])
    (package / "kernels" / "unheard_of.py").rename(package / "kernels" / "unheard.py")
    found.add(fingerprint.sources(package)[0])
    (package / "kernels" / "unheard.py").rename(package / "unheard.py")
    found.add(fingerprint.sources(package)[0])
    assert len(found) == 4


@pytest.mark.parametrize(
    ("module", "attribute", "value"),
    [("numpy", "__version__", "0"), ("llvmlite", "__version__", "0"), ("llvmlite.binding", "llvm_version_info", (1,))],
)
def test_a_tool_of_another_version_changes_the_key(monkeypatch, module, attribute, value):
    before = fingerprint.tools()
    monkeypatch.setattr(sys.modules[module], attribute, value)
    assert fingerprint.tools() != before


EDITED = """
import sys
sys.path.insert(0, {place!r})
import numpy as np
from clearhead import attention
from clearhead.definition import canonical
from clearhead.machine import compile, fingerprint
from clearhead.rules.expression import Expression as E, Formula
from clearhead.rules.mask_kinds import Where
assert str(fingerprint.PACKAGE).startswith({place!r})
{then}
drawn = E("threefry", "int", (*(E("constant", "int", value=n) for n in (1, 2)), E("row", "int"), E("key", "int")))
mask = Where(print, Formula(E("ge", "bool", (drawn, E("constant", "int", value=1 << 29)))))
x = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
same = np.array_equal(attention(x, x, x, mask=mask), canonical.attention(x, x, x, mask=mask)[0])
print(compile.compilations, "same" if same else "other")
"""


def edited(package: Path, cache: Path, then: str = "") -> list[str]:
    """What a process says whose package is a copy: how often it compiled, and whether its kernel is its definition."""
    running = process(cache, EDITED.format(place=str(package.parent), then=then))
    out, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (0, "")
    return out.split()


def edit(package: Path) -> str:
    """Draw other random numbers: the statement that does it."""
    path = package / "rules" / "threefry.py"
    assert path.read_text().count("0x1BD11BDA") == 1
    return f"import pathlib; p = pathlib.Path({str(path)!r}); p.write_text(p.read_text().replace('BDA', 'BDB'))"


def test_no_process_meets_the_code_of_other_sources(package, tmp_path):
    cache = tmp_path / "cache"
    assert edited(package, cache) == ["1", "same"]
    assert edited(package, cache) == ["0", "same"]
    exec(edit(package))  # noqa: S102
    assert edited(package, cache) == ["1", "same"]


def test_a_process_whose_sources_change_under_it_leaves_the_cache_alone(package, tmp_path):
    cache, change = tmp_path / "cache", edit(package)
    assert edited(package, cache, change) == ["1", "same"]  # it runs what it imported …
    assert not cache.exists()  # … and keeps nothing that later ones would take for theirs
    assert edited(package, cache) == ["1", "same"]
    assert edited(package, cache) == ["0", "same"]


def test_the_directory_is_the_users_unless_named(monkeypatch):
    monkeypatch.delenv(settings.CACHE_DIR.name)
    assert store.directory().name == "clearhead"
    monkeypatch.setenv(settings.CACHE_DIR.name, "~/kernels")
    assert store.directory() == Path.home() / "kernels"


def test_a_pipe_in_an_entrys_place_makes_nobody_wait(cache):
    path = entry(cache)
    path.unlink()
    os.mkfifo(path)
    compilations, _, said = outcome(process(cache))
    assert (compilations, said.count("CacheWarning")) == (1, 1)
    assert outcome(process(cache))[0] == 0


def test_a_damaged_entry_that_cannot_be_removed_is_spoken_of_once(cache, monkeypatch):
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(cache))
    path = entry(cache)
    path.write_bytes(b"damaged")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(store, "appearing", refused)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert store.load_code(path.name) is None
        store.save_code(path.name, b"code")
        store.save_code("another", b"code")
    assert len(caught) == 1


def test_without_a_home_kernels_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    homeless = "import os.path; os.path.expanduser = lambda path: path\n" + CALL
    running = process(tmp_path, homeless, CLEARHEAD_CACHE_DIR="~/kernels")
    compilations, _, said = outcome(running)
    assert (compilations, said.count("CacheWarning"), "no home directory" in said) == (1, 1, True)
    assert not list(tmp_path.iterdir())


def test_warnings_are_not_repeated_in_every_call(tmp_path, monkeypatch):
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(place))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for key in ("a", "b", "c"):
            assert store.load_code(key) is None
    assert len(caught) == 1


def test_a_damaged_entry_that_cannot_be_removed_is_said_once(cache, monkeypatch):
    entry(cache).write_bytes(b"damaged")
    code = "from pathlib import Path\ndef refuse(*a, **k): raise PermissionError(13, 'Permission denied')\n"
    code += "import os; os.unlink = Path.unlink = os.link = Path.replace = refuse\n" + CALL
    compilations, _, said = outcome(process(cache, code))
    assert compilations == 1
    assert said.count("CacheWarning") == 1
    assert "is not what clearhead wrote there" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
@pytest.mark.parametrize("what", ["fifo", "folder", "full folder", "link to itself", "device", "huge"])
def test_an_entry_that_is_no_file_is_said_once(cache, what):
    path = entry(cache)
    path.unlink()
    if what == "fifo":
        os.mkfifo(path)
    elif what == "link to itself":
        path.symlink_to(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "huge":
        path.write_bytes(b"")
        os.truncate(path, 1 << 40)
    else:
        path.mkdir()
        if what == "full folder":
            (path / "file").write_bytes(b"")
    compilations, _, said = outcome(process(cache))
    assert compilations == 1
    assert said.count("CacheWarning") == 1
    assert path.name in said


@pytest.mark.parametrize("what", ["link to itself", "link to nothing", "a name that is too long", "no home", "full"])
def test_a_directory_that_cannot_be_is_said_once(tmp_path, what):
    place, code = tmp_path / "cache", CALL
    environment = {}
    if what == "link to itself":
        place.symlink_to(place)
    elif what == "link to nothing":
        place.symlink_to(tmp_path / "gone" / "away")
    elif what == "a name that is too long":
        place = tmp_path / ("x" * 300)
    elif what == "no home":
        code = "import os, pwd\nfor name in ('HOME', 'XDG_CACHE_HOME'): os.environ.pop(name, None)\n"
        code += "def unknown(*a): raise KeyError\npwd.getpwuid = unknown\n" + CALL
        environment = {"CLEARHEAD_CACHE_DIR": ""}
    else:
        code = "import os, shutil\ndef full(*a, **k): raise OSError(28, 'No space left on device')\n"
        code += "os.link = shutil.copyfileobj = full\n" + CALL
    compilations, _, said = outcome(process(place, code, **environment))
    assert compilations == 1
    assert said.count("CacheWarning") == 1
    assert "CLEARHEAD_CACHE_DIR" in said
    assert not Path("~").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such users")
def test_the_owner_is_the_effective_user(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # as in a set-user-ID program that its caller started
    assert not store.private(tmp_path.stat())
    monkeypatch.setattr(os, "geteuid", os.getuid)
    (tmp_path / "own").mkdir(mode=0o700)
    assert store.private((tmp_path / "own").stat())
