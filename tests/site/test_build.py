"""What is built: no warning, no dead link, nothing from elsewhere, a policy on every page."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from documentation import policy

from tests.site.conftest import ROOT, Site


class Links(HTMLParser):
    """A page's links, what it loads, and its anchors."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loaded.append(found["src"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon"):
            self.loaded.append(found["href"])


@pytest.fixture(scope="module")
def pages(site: Site) -> dict[Path, Links]:
    """All pages but those of the demo, which has tests of its own."""
    found = [path for path in site.folder.rglob("*.html") if "demo" not in path.relative_to(site.folder).parts]
    return {path: Links(path.read_text("utf-8")) for path in found}


def test_builds_without_a_warning(site: Site) -> None:
    assert site.said.startswith("0\n"), site.said
    assert "WARNING" not in site.said


def dead(site: Site, pages: dict[Path, Links]) -> Iterator[str]:
    """Links within the site that lead nowhere."""
    demo = (ROOT / "scripts" / "demo_pages").exists() or (ROOT / "scripts" / "demo_pages.py").exists()
    for page, found in pages.items():
        for link in {*found.links, *found.loaded}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not demo and path.is_relative_to(site.folder / "demo"):
                continue
            if not path.exists():
                yield f"{page.relative_to(site.folder)}: {link}"
            elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].anchors:
                yield f"{page.relative_to(site.folder)}: {link} has no such place"


def test_every_link_leads_somewhere(site: Site, pages: dict[Path, Links]) -> None:
    assert len(pages) > 100
    assert list(dead(site, pages)) == []


def test_nothing_is_loaded_from_elsewhere(site: Site, pages: dict[Path, Links]) -> None:
    assert [f"{page}: {x}" for page, found in pages.items() for x in found.loaded if urlsplit(x).netloc] == []
    sheets = {path: path.read_text("utf-8") for path in site.folder.rglob("*.css")}
    assert [path for path, text in sheets.items() if re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text)] == []


def test_every_page_has_a_policy_that_allows_its_own_scripts_only(pages: dict[Path, Links]) -> None:
    for page in pages:
        text = page.read_text("utf-8")
        head = text.partition('<meta http-equiv="Content-Security-Policy"')
        assert head[1], page
        assert "<script" not in head[0], page
        allowed = re.search(r"script-src ([^;]*);", head[2])[1]
        assert "unsafe" not in allowed
        for script in policy.SCRIPT.findall(text):
            assert policy.digests([script]).strip() in allowed, page


def test_a_script_that_was_put_in_later_is_not_allowed() -> None:
    page = policy.protected('<head><meta charset="utf-8"></head><script>one()</script>')
    assert policy.digests(["one()"]) in page
    assert policy.digests(["two()"]) not in page


def test_the_reference_says_what_the_sources_say(site: Site) -> None:
    text = (site.folder / "reference" / "attention.html").read_text("utf-8")
    plain = re.sub(r"<[^>]+>", "", text)
    assert "mask: Mask = causal()" in " ".join(plain.split())
    assert "Let each query gather the values whose keys it may see, weighted by softmax of scale · q·k." in plain
    assert 'href="rules.html#clearhead.softcap"' in text
    command = (site.folder / "reference" / "commands.html").read_text("utf-8")
    assert "--attends-to TEXT" in re.sub(r"<[^>]+>", "", command)
    assert (site.folder / "source" / "clearhead" / "definition" / "canonical.py.html").exists()
