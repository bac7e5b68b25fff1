"""A Content-Security-Policy on every page: only scripts that were built run, and nothing is loaded from elsewhere."""

import base64
import hashlib
import re
from pathlib import Path

from sphinx.application import Sphinx

SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
ATTRIBUTE = re.compile(r'<[^>]*\sstyle="([^"]*)"')


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite the pages once all are written."""
    app.connect("build-finished", protect_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def protect_all(app: Sphinx, exception: Exception | None) -> None:
    """Every page of a build that succeeded."""
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            path.write_text(protected(path.read_text("utf-8")), "utf-8")


def protected(page: str) -> str:
    """The page with its policy, as the first thing after the charset."""
    scripts, styles = (digests(kind.findall(page)) for kind in (SCRIPT, STYLE))
    attributes = digests(ATTRIBUTE.findall(page))
    hashed = f" 'unsafe-hashes'{attributes}" if attributes else ""
    policy = "; ".join(
        (
            "default-src 'none'", f"script-src 'self'{scripts}", f"style-src 'self'{styles}{hashed}",
            "img-src 'self' data:", "font-src 'self'", "connect-src 'self'", "form-action 'self'", "base-uri 'none'",
        )
    )  # fmt: skip
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return re.sub(r'<meta charset="[^"]*"\s*/?>', lambda found: found[0] + meta, page, count=1)


def digests(texts: list[str]) -> str:
    """The hashes of inline texts, as a policy names them."""
    found = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts}
    return "".join(f" 'sha256-{digest}'" for digest in sorted(found))
