"""Each check of the site fails on what it is for: a small site of one page, with one fault."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from documentation import checks, docstrings, instruction_words, public

ROOT = Path(__file__).parents[2]
CONF = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "scripts")!r}]
from documentation import public
public.PUBLIC = {{"clearhead": ["causal"]}}
extensions = ["myst_parser", "sphinx.ext.autodoc"]
extensions += [f"documentation.{{name}}" for name in ("docstrings", "sources", "checks")]
nitpicky = True
myst_heading_anchors = 4
"""
WHOLE = """# Page

```{eval-rst}
.. autofunction:: clearhead.causal
```

[itself](#page), ![a picture](picture.svg)
"""
FAULTS = {
    "nothing": ("", ""),
    "a page that is not there": ("[gone](gone.md)", "gone.md"),
    "a place that is not there": ("[gone](#gone)", "gone"),
    "a picture that is not there": ("![a picture](gone.png)", "gone.png"),
    "a picture without words": ("![](picture.svg)", "no alternative text"),
    "an address that is none": ("[there](https://nowhere)", "this is no host"),
    "an object that is not there": ("{py:func}`clearhead.gone`", "clearhead.gone"),
}


def built(folder: Path, page: str, *, conf: str = CONF, more: str = "") -> str:
    """What Sphinx says of a site of one page, and perhaps a second one."""
    folder.joinpath("conf.py").write_text(conf, "utf-8")
    folder.joinpath("index.md").write_text(page, "utf-8")
    folder.joinpath("picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', "utf-8")
    if more:
        folder.joinpath("more.md").write_text(more, "utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "dummy", folder, folder / "out"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


def test_all_faults_of_a_page_are_found(tmp_path: Path) -> None:
    assert built(tmp_path, WHOLE) == ""
    page = WHOLE + "\n\n".join(fault for fault, _ in FAULTS.values())
    said = built(tmp_path, page, more="# Lost\n")
    assert [name for name, (_, words) in FAULTS.items() if words not in said] == []
    assert "more.md" in said  # is in no toctree


def test_a_public_name_without_a_place_in_the_reference_is_found(tmp_path: Path) -> None:
    conf = CONF.replace('["causal"]', '["causal", "window"]')
    assert "clearhead.window is public, but not in the reference" in built(tmp_path, WHOLE, conf=conf)


def test_a_public_name_without_a_docstring_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(checks, "PUBLIC", {"tests.site.test_checks": ["bare"]})
    monkeypatch.setattr(checks, "warn", lambda text, *values, **_: said.append(text % values))

    class Domains:
        python_domain = type("Domain", (), {"objects": {"tests.site.test_checks.bare": None}})

    checks.check_reference(None, type("Environment", (), {"domains": Domains}))
    assert said == ["tests.site.test_checks.bare has no docstring"]


def bare():
    pass


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("|x| ≤ 1, W_O and a*b", r"\|x\| ≤ 1, W\_O and a\*b"),
        ("see `attend` or `x`", "see :py:name:`attend <attend>` or ``x``"),
        ("`attention(q, cache)`s", r":py:name:`attention(q, cache) <attention>`\ s"),
        ("Raises ShapeError.", "Raises :py:name:`ShapeError`."),
        ("`a` and ` alone", r"\`a\` and \` alone"),
        ("`mask` of (…)", "``mask`` of (…)"),
    ],
)
def test_docstrings_are_taken_at_their_word(written: str, read: str) -> None:
    lines = [written]
    docstrings.convert(None, "function", "", lambda mask, x: None, None, lines)
    assert lines == [read, ""]


def test_examples_lists_and_code_keep_their_form() -> None:
    lines = ["One", "", "1. `x` first", "2. then", "   more", "", ">>> a * b", "6", "", "    with f():", "        g()"]
    docstrings.convert(None, "function", "", lambda x: None, None, lines)
    assert lines == [
        "One", "", "1. ``x`` first", "2. then", "   more", "", ">>> a * b", "6", "",
        ".. code-block:: python", "", "    with f():", "        g()", "",
    ]  # fmt: skip


@pytest.mark.parametrize("module", [checks, public, instruction_words], ids=lambda module: module.__name__)
def test_examples_hold(module) -> None:
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed
