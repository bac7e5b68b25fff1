"""Files that are filled in stages: what a journal says is on the disk, whatever happens between, and whose it is."""

import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from clearhead.errors import FileError
from clearhead.files import Spec, open_arrays, resumable_file, resuming, undertaking
from clearhead.files.resuming import finished_before, replacing_unfinished

SPECS = {"output": Spec((4,), np.dtype("float32")), "lse": Spec((2,), np.dtype("float32"))}
MINE = {"--mask": "causal()", "the input's bytes": "24"}
SUFFIXES = (".npz", ".safetensors")


class Killed(BaseException):
    """Stands for a process that ends in the middle, as far as files can tell."""


def fill(path, until, *, what=MINE, force=False):
    """Go on until so much is done, then stop; returns how much was found."""
    found = 0
    with suppress(Killed), resumable_file(path, SPECS, what, force=force) as filling:
        found = filling.done
        for n in range(found, until):
            filling.arrays["output"][n] = n + 1
            filling.save(n + 1)
        if until < 4:
            raise Killed
        filling.arrays["lse"][:] = 7
    return found


def begin_anew(path, *, force):
    """Make way for a new file."""
    with replacing_unfinished(path, force=force):
        pass


def whole(path):
    file = open_arrays(path)
    return file["output"].tolist() == [1, 2, 3, 4] and file["lse"].tolist() == [7, 7]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"a{request.param}"


def test_what_was_saved_is_gone_on_with_until_it_is_whole(path):
    assert [fill(path, until) for until in (1, 1, 3, 4)] == [0, 1, 1, 3]
    assert whole(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_file_is_the_same_as_if_it_had_been_written_at_once(path):
    other = path.with_name(f"b{path.suffix}")
    assert [fill(path, until) for until in (2, 4)] + [fill(other, 4)] == [0, 2, 0]
    assert path.read_bytes() == other.read_bytes()


BEGINNING, END = ["sync_folder", "mapped", "reserve", "add_line", "arrays_in"], ["complete", "replace"]
STAGES = [*((stage, 0, 0) for stage in BEGINNING), *((stage, 2, 0) for stage in ("mapped", "add_line", "arrays_in"))]
STAGES += [(stage, 4, 0) for stage in END] + [("sync_folder", 4, 1), ("remove_journal", 4, 0)]


@pytest.mark.parametrize(("stage", "saved", "passed"), STAGES)
def test_a_kill_at_any_stage_loses_nothing_that_was_saved(path, monkeypatch, stage, saved, passed):
    """Killed at a stage when so much was saved before, after the stage was passed so often."""
    if saved == 2:
        fill(path, 2)
    owner, calls = type(path) if stage == "replace" else resuming, []
    original = getattr(owner, stage)

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) > passed:
            raise Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, stage, killed)
        with suppress(Killed):
            fill(path, 4)
    assert len(calls) == passed + 1
    named = stage == "remove_journal" or passed
    assert finished_before(path, MINE) == bool(named)
    if not named:
        assert fill(path, 4) == saved
    assert whole(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_kill_after_the_last_sum_of_an_archive_does_not_write_it_twice(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(type(path), "replace", lambda *args: (_ for _ in ()).throw(Killed))
        fill(path, 4)
    fill(path, 4)
    fill(tmp_path / "b.npz", 4)
    assert path.read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_journal_that_was_cut_by_a_power_cut_counts_up_to_its_last_whole_line(path, cut):
    fill(path, 3)
    journal = resuming.journal_of(path)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(journal.read_bytes()[:-cut])
    kept, left = 3, cut
    while left > 0 and kept > 0:
        left -= len(lines[kept])
        kept -= 1
    assert fill(path, 4) == kept
    assert whole(path)


def test_a_damaged_line_does_not_count(path):
    fill(path, 2)
    journal = resuming.journal_of(path)
    content = bytearray(journal.read_bytes())
    content[-3] ^= 1
    journal.write_bytes(content)
    assert fill(path, 3) == 1
    assert fill(path, 4) == 3


def test_a_damaged_beginning_is_refused_by_name(path):
    fill(path, 2)
    journal = resuming.journal_of(path)
    journal.write_bytes(b"x" + journal.read_bytes())
    with pytest.raises(FileError, match=r"clearhead-progress is damaged.*begin anew by --force"):
        fill(path, 4)
    assert fill(path, 4, force=True) == 0


def test_a_journal_of_the_future_is_refused_by_name(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(resuming, "FORMAT", 9)
        fill(path, 2)
    with pytest.raises(FileError, match=r"is of format 9, and this clearhead reads 1: go on with the clearhead that"):
        fill(path, 4)


def test_another_undertaking_is_refused_by_what_differs(path):
    fill(path, 2)
    with pytest.raises(FileError, match=r"--mask was causal\(\) and is full\(\): give --mask as it was, or begin anew"):
        fill(path, 4, what=MINE | {"--mask": "full()"})
    with pytest.raises(FileError, match=r"bytes was 24 and is 25: give the file that it began with"):
        fill(path, 4, what=MINE | {"the input's bytes": "25"})
    with pytest.raises(FileError, match=r"--part was not given and is 1/2: give --part as it was"):
        fill(path, 4, what=MINE | {"--part": "1/2"})
    assert fill(path, 3) == 2
    assert fill(path, 4, what=MINE | {"--mask": "full()"}, force=True) == 0
    assert os.listdir(path.parent) == [path.name]


def copied(path):
    content = path.read_bytes()
    path.rename(path.with_name("other"))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda half: half.unlink(), "is missing"),
        (copied, "is a copy or another file"),
        (lambda half: os.truncate(half, 5), "is cut short"),
    ],
)
def test_a_journal_without_its_unfinished_file_is_refused_by_the_reason(path, harm, reason):
    fill(path, 2)
    harm(resuming.unfinished(path))
    with pytest.raises(
        FileError, match=rf"progress counts results, but .* {reason}: put back .* begin anew by --force"
    ):
        fill(path, 4)
    with pytest.raises(FileError, match="has an unfinished run"):
        begin_anew(path, force=False)
    assert fill(path, 4, force=True) == 0
    assert whole(path)


@pytest.mark.parametrize("content", [None, b"", b"cut"])
def test_an_unfinished_file_whose_journal_is_lost_is_refused(path, content):
    fill(path, 2)
    resuming.journal_of(path).unlink()
    if content is not None:
        resuming.journal_of(path).write_bytes(content)
    for begun in (lambda: fill(path, 4), lambda: begin_anew(path, force=False)):
        with pytest.raises(FileError, match=r"unfinished has lost .*progress, which .* begin anew by --force"):
            begun()
    assert resuming.unfinished(path).stat().st_size > 0
    assert fill(path, 4, force=True) == 0


def test_a_kill_while_a_run_begins_anew_is_no_lost_journal(path, monkeypatch):
    """Between the old run's end and the new one's first line."""
    fill(path, 2)
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(os, "fdopen", lambda *args: (_ for _ in ()).throw(Killed))
        fill(path, 4, force=True, what={})
    assert fill(path, 4) == 0


def test_a_spoiled_run_is_never_resumed(path):
    with suppress(Killed), resumable_file(path, SPECS, MINE) as filling:
        filling.save(2)
        filling.spoil("in was changed: begin anew by --force.")
        raise Killed
    with pytest.raises(FileError, match="cannot go on: in was changed: begin anew by --force"):
        fill(path, 4)
    assert fill(path, 4, force=True) == 0


def test_a_disk_that_is_full_at_the_beginning_leaves_nothing(path, monkeypatch):
    monkeypatch.setattr(resuming, "reserve", full)
    with pytest.raises(FileError, match="No space left on device"):
        fill(path, 4)
    assert os.listdir(path.parent) == []


def test_a_whole_file_in_the_way_stays(path):
    fill(path, 4)
    with pytest.raises(FileError, match="exists already"):
        fill(path, 4)
    assert not finished_before(path, MINE)
    fill(path, 1, force=True)
    assert whole(path)
    assert fill(path, 4, force=True) == 1


def test_only_the_same_undertaking_was_finished_before(path, monkeypatch):
    for what, expected in [(MINE, True), (MINE | {"--mask": "full()"}, False)]:
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(resuming, "remove_journal", lambda *args: (_ for _ in ()).throw(Killed))
            fill(path, 4, force=True)
        assert finished_before(path, what) == expected
        assert os.listdir(path.parent) == [path.name]


def test_a_file_that_was_named_by_hand_before_it_was_whole_is_not_taken_for_whole(path):
    fill(path, 2)
    resuming.unfinished(path).replace(path)
    assert not finished_before(path, MINE)
    with pytest.raises(FileError, match="exists already"):
        fill(path, 4)
    assert fill(path, 4, force=True) == 0


def test_an_unfinished_file_is_in_the_way_of_a_new_one_until_it_is_discarded(path):
    fill(path, 2)
    with pytest.raises(FileError, match=r"has an unfinished run, in .*: go on with it by --resume, or begin anew by"):
        begin_anew(path, force=False)
    with suppress(Killed), replacing_unfinished(path, force=True):
        raise Killed
    assert fill(path, 3) == 2, "it goes only when the new one is whole"
    begin_anew(path, force=True)
    assert os.listdir(path.parent) == []


def test_nobody_goes_on_with_a_file_that_is_being_replaced(path):
    fill(path, 2)
    with replacing_unfinished(path, force=True), pytest.raises(FileError, match="is being computed by another process"):
        fill(path, 3)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_is_begun_while_a_new_one_is_made_is_left_to_its_owner(path, force):
    with replacing_unfinished(path, force=force):
        fill(path, 2)
    assert fill(path, 3) == 2


def test_one_that_was_never_begun_is_not_in_the_way(path):
    resuming.journal_of(path).write_bytes(b"cut")
    resuming.unfinished(path).write_bytes(b"")
    begin_anew(path, force=False)
    assert os.listdir(path.parent) == []


HOLDER = """
import sys, time
from clearhead.files import Spec, resumable_file
import numpy as np
with resumable_file(sys.argv[1], {"output": Spec((4,), np.dtype("float32"))}, {"--mask": "causal()"}):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_two_processes_never_fill_one_file(path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True, env=env) as holder:
        assert holder.stdout.readline() == "begun\n"
        for meet in (
            lambda: fill(path, 4),
            lambda: fill(path, 4, force=True),
            lambda: begin_anew(path, force=True),
            lambda: finished_before(path, MINE),
        ):
            with pytest.raises(FileError, match=r"is being computed by another process.*: wait until it ends, or name"):
                meet()
        holder.kill()
    assert fill(path, 4, what={"--mask": "causal()"}, force=True) == 0


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_links_are_followed_for_the_file_and_never_for_what_is_beside_it(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.npz").symlink_to(tmp_path / "there/b.npz")
    fill(tmp_path / "a.npz", 2)
    assert len(os.listdir(tmp_path / "there")) == 2
    fill(tmp_path / "a.npz", 4)
    assert os.listdir(tmp_path / "there") == ["b.npz"]
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "c.npz.clearhead-unfinished").symlink_to(tmp_path / "precious")
    with pytest.raises(FileError):
        fill(tmp_path / "c.npz", 4)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_an_input_is_known_by_size_time_and_content(tmp_path):
    path = tmp_path / "in"
    content = bytearray(np.random.default_rng(0).bytes(5_000_000))
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18 + 123))
    known = undertaking.of_input(path)
    assert known["the input's time"] == "2001-09-09T01:46:40.000000123Z"
    for at in (0, 1 << 19, len(content) // 2 + 5, len(content) - 1):
        content[at] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18 + 123))
        assert undertaking.of_input(path)["the input's content"] != known["the input's content"]
        content[at] ^= 1
    path.write_bytes(content)
    assert undertaking.of_input(path)["the input's time"] != known["the input's time"]


def test_another_time_alone_is_refused_with_the_way_to_set_it(path):
    named = {undertaking.TIME: "2001-09-09T01:46:40.000000123Z"}
    fill(path, 2, what=named)
    with pytest.raises(FileError, match=r"touch -d 2001-09-09T01:46:40\.000000123Z sets its time"):
        fill(path, 4, what={undertaking.TIME: "2002-09-09T01:46:40.000000123Z"})


def test_a_full_disk_keeps_what_was_saved(path, monkeypatch):
    fill(path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(resuming, "add_line", full)
        with pytest.raises(FileError, match=r"No space left on device.*free space"):
            fill(path, 4)
    assert fill(path, 4) == 2


def full(*args):
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at open files in /proc")
def test_nothing_is_counted_or_removed_before_what_it_rests_on_is_on_the_disk(tmp_path, monkeypatch):
    events, fsync, unlink, replace = [], os.fsync, type(tmp_path).unlink, type(tmp_path).replace

    def synced(descriptor):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(f"sync {name.removeprefix('a.npz.clearhead-')}")
        fsync(descriptor)

    def told(name, original):
        return lambda path, *given, **named: (events.append(name), original(path, *given, **named))[1]

    path = tmp_path / "a.npz"
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(resuming, "add_line", told("line", resuming.add_line))
    monkeypatch.setattr(type(path), "unlink", told("remove", unlink))
    monkeypatch.setattr(type(path), "replace", told("name", replace))
    with resumable_file(path, SPECS, MINE) as filling:
        begun = list(events)
        filling.save(3)
        saved = events[len(begun) :]
    folder = f"sync {tmp_path.name}"
    assert begun == ["remove", "line", "sync progress", folder, "sync unfinished"]
    assert saved == ["sync unfinished", "line", "sync progress"]
    assert events[len(begun) + len(saved) :] == [*saved, "name", folder, "remove"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path):
    path, specs = tmp_path / "y.npy", {"output": Spec((2,), np.dtype("float32"))}
    reading, writing = os.pipe()
    with suppress(KeyboardInterrupt), resumable_file(path, specs, {"mask": "full()"}):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until its parent is done
            os._exit(0)
        raise KeyboardInterrupt
    try:
        with resumable_file(path, specs, {"mask": "full()"}) as filling:
            filling.arrays["output"][:] = 1
    finally:
        os.close(writing)
        os.waitpid(child, 0)
    assert os.listdir(tmp_path) == ["y.npy"]
