"""The page's HTML: as served, and as one self-contained file.

Responsible for joining style sheets and modules into one file. There, all modules share one scope, so their names must
differ (a test checks that).
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

STATIC = resources.files(__package__) / "static"


@dataclass(frozen=True)
class Screen:
    """A page: its style sheets and its modules, each after the modules it imports, and the last one starts it."""

    name: str
    title: str
    styles: tuple[str, ...]
    modules: tuple[str, ...]


SHARED_STYLES = ("tokens.css", "shell.css")
SHARED = ("numbers", "dom", "notebook", "ask", "controls", "appearance", "files")
LEARN = Screen(
    "learn",
    "clearhead: self-attention you can see through",
    (*SHARED_STYLES, "learn/learn.css"),
    (
        *SHARED, "learn/attention", "learn/course", "learn/state", "learn/problem", "learn/formulas", "learn/actions",
        "learn/items", "learn/triangle", "learn/lines", "learn/plane", "learn/question", "learn/path", "learn/python",
        "learn/heads", "learn/growth", "learn/export", "learn/bar", "learn/page", "learn/main",
    ),
)  # fmt: skip
READ = Screen(
    "read",
    "clearhead: read a model's attention",
    (*SHARED_STYLES, "read/read.css", "read/map.css", "read/sheet.css"),
    (
        *SHARED, "read/tokens", "read/colours", "read/sight", "read/layout", "read/text", "read/minimap",
        "read/labels", "read/viewport", "read/marks", "read/frame", "read/patches", "read/wording", "read/find",
        "read/generation", "read/textpane", "read/answer", "read/viewbar", "read/trust", "read/names", "read/state",
        "read/code", "read/dialogs", "read/tiles", "read/insight", "read/pixels", "read/gestures", "read/said",
        "read/cells", "read/map", "read/ranks", "read/across", "read/survey", "read/thumbs", "read/headgrid",
        "read/sheettable", "read/sheet", "read/kept", "read/drawing", "read/exports", "read/line",
        "read/heard", "read/held", "read/focus", "read/pane", "read/main",
    ),
)  # fmt: skip
SCREENS = {screen.name: screen for screen in (LEARN, READ)}
HTML_HEAD = '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
VIEWPORT = '<meta name="viewport" content="width=device-width,initial-scale=1">\n<link rel="icon" href="data:,">\n'
HTML_BODY = '</head>\n<body class="{name}">\n<noscript>This page needs JavaScript.</noscript>\n</body>\n</html>\n'
BASE_POLICY = "default-src 'none'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
TRUSTED_TYPES = "require-trusted-types-for 'script'; trusted-types 'none'"


def served_page(screen: Screen) -> str:
    """The page that loads everything else from its server."""
    links = "".join(f'<link rel="stylesheet" href="static/{name}">\n' for name in screen.styles)
    script = f'<script type="module" src="static/{screen.modules[-1]}.js"></script>\n'
    return HTML_HEAD.format(title=screen.title) + VIEWPORT + links + script + HTML_BODY.format(name=screen.name)


def served_policy() -> str:
    """The content security policy of the served page."""
    own = "script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
    return f"{BASE_POLICY}; {own}; {TRUSTED_TYPES}"


def single_file(screen: Screen, known: Mapping[str, Any], state: str) -> str:
    """A screen as one file that contains the answers in `known`, by question, and opens at a state."""
    return with_kept(frame(screen), {"known": known, "state": state})


def frame(screen: Screen) -> str:
    """A screen as one file that still lacks what it keeps: its styles and its script.

    Its content security policy allows these by their hashes, so nothing else can run in it.
    """
    styles = "\n".join((STATIC / name).read_text("utf-8") for name in screen.styles)
    script = joined_script([module_text(name) for name in screen.modules])
    policy = f"{BASE_POLICY}; script-src '{policy_hash(script)}'; style-src '{policy_hash(styles)}'; {TRUSTED_TYPES}"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    body = HTML_BODY.format(name=screen.name).replace("</body>", f"<script>{script}</script>\n</body>")
    return HTML_HEAD.format(title=screen.title) + meta + VIEWPORT + f"<style>{styles}</style>\n" + body


def with_kept(file: str, kept: Mapping[str, Any]) -> str:
    """A screen's file with what it keeps, as data that cannot end its element."""
    data = json.dumps(kept, ensure_ascii=True).replace("<", "\\u003c")
    return file.replace("<script>", f'<script type="application/json" id="kept">{data}</script>\n<script>', 1)


def module_text(name: str) -> str:
    """A module's source, by its name in a screen."""
    return (STATIC / f"{name}.js").read_text("utf-8")


def joined_script(modules: Sequence[str]) -> str:
    """Modules' sources as one script, without `import`, because every name is in scope, and without `export`.

    Comments on lines of their own and indentation, a fifth of the text, are left out.
    """
    parts = []
    for text in modules:
        text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
        text = re.sub(r"^ */\*\*.*?\*/\n", "", text, flags=re.MULTILINE | re.DOTALL)
        parts.append(re.sub(r"^ *(//.*)?\n?", "", text, flags=re.MULTILINE))
    joined = "\n".join(parts)
    return f"'use strict';\n(() => {{\n{joined}\n}})();"


def policy_hash(text: str) -> str:
    """The hash of a source, as a content security policy writes it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
