"""The page as text: as the server gives it, and as one file that needs nothing else.

Decides what stands in the page's HTML, and how style sheets and modules become one file. All modules share one scope
there, so their names differ (a test holds that).
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

STATIC = resources.files(__package__) / "static"
STYLES = ("tokens.css", "shell.css", "learn.css")
MODULES = (
    "numbers", "attention", "state", "problem", "dom", "formulas", "course", "ask", "actions", "items", "triangle",
    "lines", "plane", "question", "path", "python", "heads", "growth", "export", "bar", "page", "main",
)  # fmt: skip  # each after those it imports
TITLE = "clearhead: self-attention you can see through"
HEAD = '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
VIEWPORT = '<meta name="viewport" content="width=device-width,initial-scale=1">\n<link rel="icon" href="data:,">\n'
BODY = '</head>\n<body class="learn">\n<noscript>This page needs JavaScript.</noscript>\n</body>\n</html>\n'
POLICY = "default-src 'none'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
TRUSTED = "require-trusted-types-for 'script'; trusted-types 'none'"


def served() -> str:
    """The page that asks its server for everything else."""
    links = "".join(f'<link rel="stylesheet" href="static/{name}">\n' for name in STYLES)
    script = '<script type="module" src="static/main.js"></script>\n'
    return HEAD.format(title=TITLE) + VIEWPORT + links + script + BODY


def policy() -> str:
    """The content security policy of the served page."""
    own = "script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
    return f"{POLICY}; {own}; {TRUSTED}"


def single(known: Mapping[str, Any], state: str) -> str:
    """The page as one file with the answers it has had, `known` by question, opened at a state.

    Its policy names its own script and styles by their hashes, so nothing else can run in it.
    """
    styles = "\n".join((STATIC / name).read_text("utf-8") for name in STYLES)
    told = json.dumps({"known": known, "state": state}, ensure_ascii=True).replace("<", "\\u003c")
    script = f"'use strict';\n(() => {{\nconst KEPT = {told};\n{joined()}\n}})();"
    policy = f"{POLICY}; script-src '{digest(script)}'; style-src '{digest(styles)}'; {TRUSTED}"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    late = BODY.replace("</body>", f"<script>{script}</script>\n</body>")
    return HEAD.format(title=TITLE) + meta + VIEWPORT + f"<style>{styles}</style>\n" + late


def joined() -> str:
    """All modules as one script: imports go, for every name is in scope, and so does `export`."""
    parts = []
    for name in MODULES:
        text = (STATIC / f"{name}.js").read_text("utf-8")
        text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def digest(text: str) -> str:
    """A source as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
