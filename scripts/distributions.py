"""The wheel and the sdist: built from a commit, twice and under other circumstances, and compared byte for byte."""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

CIRCUMSTANCES: tuple[Mapping[str, str], ...] = (
    {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1"},
    {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"},
)
UMASKS = (0o022, 0o077)


def clone(repository: Path, commit: str, folder: Path) -> None:
    """A commit of a repository with its tags, and nothing else."""
    for command in (
        ["git", "clone", "--quiet", "--no-checkout", str(repository), str(folder)],
        ["git", "-C", str(folder), "checkout", "--quiet", "--detach", commit],
    ):
        subprocess.run(command, check=True)  # noqa: S603


def age(folder: Path, days: int) -> None:
    """Make a tree look as if it had been written some days ago, and write its files anew in the opposite order."""
    files = sorted((path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts), reverse=True)
    for path in files:
        content, mode = path.read_bytes(), path.stat().st_mode
        path.unlink()
        path.write_bytes(content)
        path.chmod(mode & 0o700)
        then = path.stat().st_mtime - 86400 * days
        os.utime(path, (then, then))


def build(tree: Path, into: Path, circumstances: int = 0) -> dict[str, Path]:
    """Build a tree's sdist and wheel under one of two circumstances; returns them as "sdist" and "wheel"."""
    env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(into)]
    env |= CIRCUMSTANCES[circumstances]
    done = subprocess.run(command, cwd=tree, env=env, umask=UMASKS[circumstances], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {"sdist": next(into.glob("*.tar.gz")), "wheel": next(into.glob("*.whl"))}


def digest(path: Path) -> str:
    """A file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(distribution: Path) -> list[str]:
    """The files of a wheel, or of a sdist without its top folder."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as wheel:
            return sorted(wheel.namelist())
    with tarfile.open(distribution) as sdist:
        return sorted(member.name.partition("/")[2] for member in sdist if member.isfile())


def sums(distributions: Iterable[Path]) -> str:
    """What `sha256sum --check` reads."""
    return "".join(f"{digest(path)}  {path.name}\n" for path in sorted(distributions))
