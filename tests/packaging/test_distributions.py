"""The wheel and the sdist: reproducible, whole, with nothing stray and a licence for everything."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import distributions
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NO_SOURCE = ("__pycache__", ".git", ".venv", ".browser", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache",
    "build", "dist", "PKG-INFO")  # the last is an sdist's  # fmt: skip


def git(folder, command):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command.split()], check=True, cwd=folder)


def tree_in(folder: Path) -> Path:
    """A copy of this checkout as a repository of one commit, tagged v7.8.9."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NO_SOURCE))
    for command in ("init -q", "add -A", "commit -qm 1", "tag v7.8.9"):
        git(folder, command)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return tree_in(tmp_path_factory.mktemp("tree") / "clearhead")


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    return distributions.build(tree, tmp_path_factory.mktemp("built"))


def test_two_builds_of_a_commit_have_the_same_bytes(tree, built, tmp_path):
    """In another folder, at another time, with another umask, locale, zone and order of files; and from the sdist."""
    distributions.clone(tree, "HEAD", tmp_path / "elsewhere")
    distributions.age(tmp_path / "elsewhere", days=400)
    again = distributions.build(tmp_path / "elsewhere", tmp_path / "built", circumstances=1)
    assert built["wheel"].name == "clearhead-7.8.9-py3-none-any.whl"
    assert built["sdist"].name == "clearhead-7.8.9.tar.gz"
    for kind in built:
        assert distributions.digest(built[kind]) == distributions.digest(again[kind]), kind
    with tarfile.open(built["sdist"]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    from_sdist = distributions.build(tmp_path / "clearhead-7.8.9", tmp_path / "from_sdist", circumstances=1)
    assert distributions.digest(from_sdist["wheel"]) == distributions.digest(built["wheel"])


def test_the_wheel_holds_the_package_and_nothing_else(tree, built):
    held = set(distributions.names(built["wheel"]))
    inside = {path.relative_to(tree).as_posix() for path in (tree / "clearhead").rglob("*") if path.is_file()}
    licences = {"LICENSE", "THIRD-PARTY.md", "clearhead/model/NOTICE.md", "clearhead/words/NOTICE.md"}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", *(f"licenses/{name}" for name in licences)}
    assert held == inside | {f"clearhead-7.8.9.dist-info/{name}" for name in about}
    assert {"clearhead/py.typed", "clearhead/model/tiny.safetensors", "clearhead/view/static/learn/main.js"} <= held


def test_the_sdist_holds_what_the_tests_need(tree, built):
    held = set(distributions.names(built["sdist"]))
    listed = subprocess.run(["git", "ls-files"], cwd=tree, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    unneeded = {".ci/run", ""}
    assert held == set(listed) - unneeded | {"PKG-INFO"}


def rows() -> dict[str, str]:
    """The patterns of files in THIRD-PARTY.md, and the licence of each."""
    table = re.findall(r"^\| (`.+?`) \|.*\| (.+?) \|$", (ROOT / "THIRD-PARTY.md").read_text("utf-8"), re.M)
    return {pattern: licence for patterns, licence in table for pattern in re.findall(r"`(.+?)`", patterns)}


def covered(name: str) -> bool:
    """Whether a row covers a file; a star stays within a folder."""
    return any(
        name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern) for pattern in rows()
    )  # fmt: skip


def test_everything_in_the_wheel_has_a_licence(built):
    data = [name for name in distributions.names(built["wheel"]) if ".dist-info/" not in name and name[-3:] != ".py"]
    assert len(data) > 50
    assert [name for name in data if not covered(name)] == []
    assert not covered("clearhead/view/static/font.woff2")
    assert not covered("clearhead/words/more.safetensors")
    assert [pattern for pattern in rows() if not fnmatch.filter(data, pattern)] == []


def test_the_notices_name_the_files_that_they_are_for():
    told = (ROOT / "clearhead/words/NOTICE.md").read_text("utf-8") + (ROOT / "clearhead/model/NOTICE.md").read_text(
        "utf-8"
    )
    for pattern, licence in rows().items():
        if "NOTICE.md" in licence:
            assert f"`{Path(pattern).name}`" in told, pattern


@pytest.mark.parametrize("folder", ["clearhead/view/static", "clearhead/notebook/static"])
def test_the_pages_code_is_the_projects_own(folder):
    """What is brought in from elsewhere says whose it is; it needs a row of its own."""
    for path in (ROOT / folder).rglob("*.*"):
        text = path.read_text("utf-8").lower()
        assert not re.search(r"copyright|©|@license|spdx|sourcemappingurl", text), path
        assert max(map(len, text.splitlines())) < 2000, f"{path} is minified"


def test_the_metadata_say_what_the_project_says(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        metadata = wheel.read("clearhead-7.8.9.dist-info/METADATA").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "License-Expression: Apache-2.0" in metadata
    for name in project["license-files"]:
        assert f"License-File: {name}" in metadata
    for extra in project["optional-dependencies"]:
        assert f"Provides-Extra: {extra}" in metadata


@pytest.mark.parametrize(
    ("system", "needed"), [("linux", True), ("win32", True), ("emscripten", False), ("ios", False)]
)
def test_llvmlite_is_required_where_it_is_built(system, needed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [llvmlite] = [line for line in map(Requirement, project["dependencies"]) if line.name == "llvmlite"]
    assert llvmlite.marker.evaluate({"sys_platform": system}) == needed


def version(tree: Path) -> str:
    """The version of a tree, or of one that is not in any repository."""
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    command = [sys.executable, "-W", "ignore", "-m", "hatchling", "version"]
    return subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True, env=env).stdout.strip()


def test_the_version_is_the_tags(tmp_path):
    """With a tag, after it, without any (as in continuous integration), from an archive, and from a bare copy."""
    tree, archive = tmp_path / "tree", tmp_path / "archive"
    (tree / "clearhead").mkdir(parents=True)
    archive.mkdir()
    kept = ("pyproject.toml", "README.md", "LICENSE", "THIRD-PARTY.md", ".gitattributes", ".git_archival.txt")
    for name in (*kept, "clearhead/words/NOTICE.md", "clearhead/model/NOTICE.md"):
        (tree / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / name, tree / name)

    assert version(tree).startswith("0.")  # not in a repository: neither a tag nor a commit is known
    for command in ("init -q", "add -A", "commit -qm 1"):
        git(tree, command)
    assert re.fullmatch(r"0\.1\.0\.dev1\+g[0-9a-f]{7,}", version(tree))
    git(tree, "tag v1.2.3")
    assert version(tree) == "1.2.3"
    git(tree, f"archive HEAD --output {archive}.tar")
    with tarfile.open(f"{archive}.tar") as packed:
        packed.extractall(archive, filter="data")
    assert version(archive) == "1.2.3"
    git(tree, "commit -q --allow-empty -m 2")
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]{7,}", version(tree))


def test_an_installed_package_knows_its_version(built, tmp_path):
    """The import does not look for it."""
    with zipfile.ZipFile(built["wheel"]) as wheel:
        wheel.extractall(tmp_path)  # noqa: S202
    code = (
        "import sys, clearhead; assert 'importlib.metadata' not in sys.modules; "
        "print(clearhead.__version__, '__version__' in clearhead.__all__, hasattr(clearhead, 'unknown'))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert (done.stdout.split(), done.stderr) == (["7.8.9", "True", "False"], "")
