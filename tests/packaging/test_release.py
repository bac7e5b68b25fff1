"""`scripts/release` refuses what is not ready, and the files that a code host shows are in order."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.fixture
def project(tmp_path):
    """A small repository with the scripts and a changelog."""
    (tmp_path / "scripts").mkdir()
    for name in ("release", "distributions.py", "smoke.py"):
        (tmp_path / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- New.\n\n## 1.2.3\n\n- Old.\n")
    for command in ("init -q", "add -A", "commit -qm 1", "tag v1.2.3"):
        git(tmp_path, command)
    return tmp_path


def git(folder, command):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command.split()], check=True, cwd=folder)


def refusal(project, version, *python):
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *python, project / "scripts" / "release", version, "--dry-run"],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 1
    return done.stderr


def test_what_is_not_ready_is_refused(project):
    assert "1.3 is not a version: give three numbers" in refusal(project, "1.3")
    assert "is not a version" in refusal(project, "٣.0.0")
    assert "The tag v1.2.3 exists" in refusal(project, "1.2.3")
    assert "CHANGELOG.md says nothing of 1.3.0: give what is under “Unreleased” the heading" in refusal(
        project, "1.3.0"
    )
    (project / "stray.txt").write_text("")
    assert "The tree is not clean: commit or remove these.\n?? stray.txt" in refusal(project, "1.3.0")


def test_missing_tools_are_named_before_anything_is_built(project):
    (project / "CHANGELOG.md").write_text("## 1.3.0\n\n- New.\n")
    git(project, "commit -qam 2")
    assert refusal(project, "1.3.0", "-S") == "hatchling is not installed: pip install 'clearhead[release]'.\n"


def test_the_citation_names_the_project():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"].startswith(project["name"])
    assert cited["license"] == project["license"]
    assert {"message", "authors", "type"} <= cited.keys()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_ask_what_a_report_needs(path):
    template = yaml.safe_load(path.read_text("utf-8"))
    if path.stem == "config":
        return
    assert {"name", "description", "body"} <= template.keys()
    asked = {part.get("id") for part in template["body"]}
    assert ("doctor" in asked) == (path.stem in ("bug", "wrong-number"))
    for part in template["body"]:
        assert part["type"] == "markdown" or part["attributes"]["label"]


def test_no_address_is_made_up():
    """Reports go by the code host's own form; no mail address is given that nobody reads."""
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CITATION.cff", "CONTRIBUTING.md"):
        assert not re.search(r"\w@\w+\.\w", (ROOT / name).read_text("utf-8")), name
