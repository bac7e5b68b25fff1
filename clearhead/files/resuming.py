"""A new file whose filling may be interrupted at any moment, by a power cut too, and gone on with.

Until it is whole, `FILE.clearhead-unfinished` holds it, and `FILE.clearhead-progress`, the journal, says of which
undertaking it is and how far. What the journal counts is on the disk before the journal says so. Whoever fills a file
holds a lock on its journal. At the end the unfinished file gets its name and the journal goes.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from errno import ENOSPC
from io import FileIO
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

from clearhead.arrays import Array
from clearhead.errors import FileError
from clearhead.files.undertaking import Undertaking, check_same
from clearhead.files.writing import Spec, arrays_in, complete, destination, layout_of, mapped, reserve, writing_to
from clearhead.machine.sharing import lock, open_shared, unlock

FORMAT = 1  # of journals
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


class Record(NamedTuple):
    """What a journal says."""

    undertaking: dict[str, str]
    inode: int  # of the unfinished file
    done: int
    whole: bool  # nothing but a name is missing
    spoiled: str  # why it cannot go on, if so
    end: int  # of its undamaged lines


@dataclass
class Filling:
    """A file that is being filled: its arrays, and how much of it was done when it was last saved."""

    path: Path
    arrays: dict[str, Array]
    done: int
    buffer: mmap = field(repr=False)
    file: BinaryIO = field(repr=False)
    journal: FileIO = field(repr=False)

    def save(self, done: int) -> None:
        """Make it outlast a power cut that so much is done, as the arrays hold it."""
        with writing_to(self.path):
            self.buffer.flush()
            os.fsync(self.file.fileno())
            add_line(self.journal, {"done": done})
        self.done = done

    def spoil(self, why: str) -> None:
        """Note that what was done is worth nothing, so that it is never resumed."""
        with writing_to(self.path):
            add_line(self.journal, {"spoiled": why})


@contextmanager
def resumable_file(
    path: str | os.PathLike[str], specs: Mapping[str, Spec], undertaking: Undertaking, *, force: bool = False
) -> Iterator[Filling]:
    """Fill a new file as `new_file` does, going on where an earlier process that filled it has ended.

    `undertaking` says what of. Raises FileError if the unfinished file is of another one, naming the difference; with
    `force`, it begins anew then. An error or an interrupt leaves the unfinished file and its journal.

    >>> import numpy as np
    >>> path, specs = getfixture("tmp_path") / "y.npy", {"output": Spec((2,), np.dtype("float32"))}
    >>> with suppress(KeyboardInterrupt), resumable_file(path, specs, {"mask": "full()"}) as filling:
    ...     filling.arrays["output"][0] = 1
    ...     filling.save(1)
    ...     raise KeyboardInterrupt
    >>> with resumable_file(path, specs, {"mask": "full()"}) as filling:
    ...     filling.arrays["output"][filling.done :] = 2
    >>> np.load(path)
    array([1., 2.], dtype=float32)
    """
    path = Path(path)
    target, layout = destination(path, force), layout_of(path, specs)
    with ExitStack() as stack:
        journal = stack.enter_context(locked_journal(path))
        with writing_to(path):
            half = unfinished(path)
            found = found_record(path, journal, layout.size, undertaking, force)
            file = stack.enter_context(os.fdopen(open_shared(half, FLAGS), "r+b"))
            file.truncate(layout.size if found else 0)  # `complete` may have added to its end
            if found is None:
                begin(path, journal, file, layout.size, undertaking)
            buffer = mapped(file, layout)
        filling = Filling(path, arrays_in(buffer, layout, specs), found.done if found else 0, buffer, file, journal)
        yield filling
        filling.arrays.clear()
        with writing_to(path):
            complete(path, file, buffer, specs)
            destination(path, force)
            add_line(journal, {"whole": True})
            half.replace(target)
            sync_folder(path)  # before the journal goes, or a power cut could leave neither
            remove_journal(path)


def begin(path: Path, journal: FileIO, file: BinaryIO, size: int, undertaking: Undertaking) -> None:
    """Write the journal's first line and reserve the file's space; leaves neither if there is none."""
    try:
        inode = os.fstat(file.fileno()).st_ino
        # First the line: a file that has a size and no line is one whose journal was lost.
        add_line(journal, {"format": FORMAT, "undertaking": dict(undertaking), "inode": inode})
        sync_folder(path)
        reserve(file, size)
        os.fsync(file.fileno())
    except OSError:
        unfinished(path).unlink(missing_ok=True)
        journal.truncate(0)  # `locked_journal` removes it
        raise


def finished_before(path: Path, undertaking: Undertaking) -> bool:
    """Whether a process was killed between naming its whole file and removing the journal, which is removed now."""
    if not any_beside(path):
        return False
    with locked_journal(path) as journal, suppress(FileError, FileNotFoundError):
        found = read_record(path, journal)
        if found is not None and found.whole and not unfinished(path).exists():
            named = os.stat(path).st_ino == found.inode
            remove_journal(path)
            return named and found.undertaking == dict(undertaking)
    return False


@contextmanager
def replacing_unfinished(path: Path, *, force: bool) -> Iterator[None]:
    """Lock an unfinished file that is there, and remove it when the block ends without an error.

    Raises FileError if it could be resumed, unless `force`, or if another process fills it. One that another process
    begins during the block is left to it.
    """
    if not any_beside(path):
        yield
        return
    with locked_journal(path) as journal:
        found = None if force else read_record(path, journal)
        if not force and found is None:
            check_journal_there(path)
        if found is not None and (unfinished(path).exists() or (found.done and not found.whole)):
            raise FileError(
                f"{path} has an unfinished run, in {unfinished(path).name} and {journal_of(path).name}: go on with it "
                "by --resume, or begin anew by --force."
            )
        yield
        with writing_to(path):
            unfinished(path).unlink(missing_ok=True)
            remove_journal(path)


def any_beside(path: Path) -> bool:
    """Whether a file has an unfinished one or a journal beside it."""
    with writing_to(path):
        return any(name.exists() for name in (journal_of(path), unfinished(path)))


def journal_of(path: Path) -> Path:
    """The journal beside a file, or beside what a link points to."""
    return Path(f"{os.path.realpath(path)}.clearhead-progress")


def unfinished(path: Path) -> Path:
    """The name that a file has until it is whole."""
    return Path(f"{os.path.realpath(path)}.clearhead-unfinished")


@contextmanager
def locked_journal(path: Path) -> Iterator[FileIO]:
    """The journal of a file, locked. If it is left empty, it is removed."""
    with writing_to(path):
        name = journal_of(path)
    while True:
        with writing_to(name):
            descriptor = open_shared(name, FLAGS)
        with FileIO(descriptor, "r+") as journal:
            try:
                lock(descriptor)
            except BlockingIOError:
                raise FileError(
                    f"{path} is being computed by another process, which has locked {name.name}: wait until it ends, "
                    "or name another file."
                ) from None
            except OSError:  # the file system has no locks
                pass
            if not same_file(name, descriptor):
                continue  # its owner has finished and removed it
            try:
                yield journal
            finally:
                if not os.fstat(descriptor).st_size and same_file(name, descriptor):
                    remove_journal(path)
                unlock(descriptor)
            return


def same_file(name: Path, descriptor: int) -> bool:
    """Whether a name is still that of an open file."""
    try:
        return os.path.samestat(os.stat(name), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_journal(path: Path) -> None:
    """Remove a journal that this process has locked."""
    journal_of(path).unlink(missing_ok=True)


def found_record(path: Path, journal: FileIO, size: int, undertaking: Undertaking, force: bool) -> Record | None:
    """What the journal says of the same undertaking, or None, with the journal emptied, to begin anew."""
    try:
        found = read_record(path, journal)
        if found is not None:
            check_same(f"the unfinished run of {path}", found.undertaking, undertaking, "begin anew by --force")
            if found.spoiled:
                raise FileError(f"the unfinished run of {path} cannot go on: {found.spoiled}")
            fault = fault_of_unfinished(path, found.inode, size)
            if fault is None:
                journal.truncate(found.end)
                journal.seek(found.end)
                return found
            if found.done:
                raise FileError(
                    f"{journal_of(path)} counts results, but {unfinished(path).name} {fault}: put back the file that "
                    "was there, or begin anew by --force."
                )
        else:
            check_journal_there(path)
    except FileError:
        if not force:
            raise
    # First the file: without a line of the journal it would look like one whose journal was lost.
    unfinished(path).unlink(missing_ok=True)
    journal.truncate(0)
    journal.seek(0)
    return None


def fault_of_unfinished(path: Path, inode: int, size: int) -> str | None:
    """Why the unfinished file is not the one that the journal is of, if so."""
    try:
        status = os.stat(unfinished(path))
    except FileNotFoundError:
        return "is missing"
    if status.st_ino != inode:
        return "is a copy or another file"
    return "is cut short" if status.st_size < size else None


def check_journal_there(path: Path) -> None:
    """Refuse an unfinished file whose journal, which says what it is of, was lost."""
    with suppress(FileNotFoundError):
        if os.stat(unfinished(path)).st_size:
            raise FileError(
                f"{unfinished(path)} has lost {journal_of(path).name}, which says what it holds: put that back, or "
                "begin anew by --force."
            )


def read_record(path: Path, journal: FileIO) -> Record | None:
    """What a journal says; None if its first line was never finished. Later lines that are damaged do not count."""
    journal.seek(0)
    texts = journal.read().split(b"\n")[:-1]  # behind the last line is nothing, or what a power cut left of one
    if not texts:
        return None
    first, *others = map(checked, texts)
    if first is None:
        raise FileError(f"{journal_of(path)} is damaged, so its run cannot go on: begin anew by --force.")
    if first["format"] != FORMAT:
        raise FileError(
            f"{journal_of(path)} is of format {first['format']}, and this clearhead reads {FORMAT}: go on with the "
            "clearhead that wrote it, or begin anew by --force."
        )
    lines = [line for line in others if line]
    done, whole = max((line.get("done", 0) for line in lines), default=0), any("whole" in line for line in lines)
    spoiled = next((line["spoiled"] for line in lines if "spoiled" in line), "")
    return Record(first["undertaking"], first["inode"], done, whole, spoiled, sum(len(text) + 1 for text in texts))


def add_line(journal: FileIO, content: dict[str, Any]) -> None:
    """Write one line, preceded by its checksum, and wait until it is on the disk."""
    text = json.dumps(content).encode()
    line = b"%08x %s\n" % (crc32(text), text)
    if journal.write(line) < len(line):
        raise OSError(ENOSPC, os.strerror(ENOSPC))
    os.fsync(journal.fileno())


def checked(line: bytes) -> dict[str, Any] | None:
    """A line's content, or None if it is not what was written."""
    check, _, text = line.partition(b" ")
    content: dict[str, Any] | None = json.loads(text) if check == b"%08x" % crc32(text) else None
    return content


def sync_folder(path: Path) -> None:
    """Make names in a file's folder outlast a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
