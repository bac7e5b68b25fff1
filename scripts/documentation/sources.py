"""Pages of source code: what a page links outside of docs/, and where each object of the reference is written.

On a code host such a link opens the file. Here it opens a page of the site, so that everything can be read from disk.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[2]
INCLUDED = {"CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing", "clearhead/words/README.md": "word-vectors"}
LANGUAGES = {".py": "python", ".c": "c", ".js": "javascript", ".md": "markdown", ".toml": "toml", ".csv": "text"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Turn links to files into links to their pages, and write these."""
    app.connect("builder-inited", begin)
    app.connect("doctree-read", link_files, priority=100)  # before Sphinx copies them as downloads
    app.connect("doctree-read", link_objects)
    app.connect("env-merge-info", merge)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def begin(app: Sphinx) -> None:
    """No page yet."""
    app.env.source_files = set()  # type: ignore[attr-defined]


def merge(_: Sphinx, env: BuildEnvironment, __: set[str], other: BuildEnvironment) -> None:
    """Join what several processes found."""
    env.source_files |= other.source_files  # type: ignore[attr-defined]


def page_of(path: Path) -> str:
    """The page of a file of the repository."""
    return f"source/{path.relative_to(ROOT).as_posix()}"


def link_files(app: Sphinx, tree: nodes.document) -> None:
    """Links to text files outside of docs/ open their pages."""
    place = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(tree.findall(addnodes.download_reference)):
        path = (place / node["reftarget"]).resolve()
        if path.is_relative_to(ROOT) and path.is_file() and language_of(path):
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri_of(app, path), internal=True))
    for node in list(tree.findall(addnodes.pending_xref)):  # Markdown outside of docs/
        path = Path(f"{node['reftarget']}.md")
        if node.get("refdomain") == "doc" and path.is_absolute() and path.is_file():
            page = INCLUDED.get(path.relative_to(ROOT).as_posix())
            uri = app.builder.get_relative_uri(app.env.docname, page) if page else uri_of(app, path)
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))
        elif node.get("reftype") == "myst" and (place / node["reftarget"]).is_dir():
            node.replace_self(node.children)


def link_objects(app: Sphinx, tree: nodes.document) -> None:
    """Each object of the reference has a link to the line where it is written."""
    for signature in tree.findall(addnodes.desc_signature):
        found = written_at(signature.get("module") or "", signature.get("fullname") or "")
        if found is not None:
            path, line = found
            uri = f"{uri_of(app, path)}#line-{line}"
            link = nodes.reference("", "[source]", refuri=uri, internal=True, classes=["viewcode-link"])
            signature += link


def uri_of(app: Sphinx, path: Path) -> str:
    """A file's page as seen from the page that is being read."""
    app.env.source_files.add(path)  # type: ignore[attr-defined]
    return app.builder.get_relative_uri(app.env.docname, page_of(path))


def written_at(module: str, name: str) -> tuple[Path, int] | None:
    """The file and line of an object."""
    item: Any = sys.modules.get(module)
    for part in name.split("."):
        item = inspect.getattr_static(item, part, None)
    for inner in ("fget", "func", "__func__"):
        item = getattr(item, inner, item)
    try:
        path, line = Path(inspect.getfile(inspect.unwrap(item))).resolve(), inspect.getsourcelines(item)[1]
    except (TypeError, OSError):
        return None
    return (path, line) if path.is_relative_to(ROOT) else None


def language_of(path: Path) -> str:
    """The language of a file for the highlighter; an empty text for files that are no text."""
    if path.suffix:
        return LANGUAGES.get(path.suffix, "")
    first = path.read_text("utf-8").partition("\n")[0]
    return "python" if "python" in first else "bash" if first.startswith("#!") else "text"


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each file as a page, with an anchor at each line."""
    builder: Any = app.builder
    trees: dict[tuple[Any, ...], str] = {}

    def tree_for(page: str) -> Callable[..., str]:
        """The navigation, which is the same for all pages of one depth: a third of the build would go into it."""

        def tree(**options: Any) -> str:
            key = (page.count("/"), *sorted(options.items()))
            if key not in trees:
                trees[key] = builder._get_local_toctree(page, **options)
            return trees[key]

        return tree

    for path in sorted(app.env.source_files):  # type: ignore[attr-defined]
        page, name, text = page_of(path), path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        code = builder.highlighter.highlight_block(text, language_of(path), lineanchors="line")
        body = f"<h1>{escape(name)}</h1>\n{code}"
        yield page, {"title": name, "body": body, "toctree": tree_for(page)}, "page.html"
