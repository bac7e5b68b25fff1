"""The page as HTML for viewers without widgets: in a frame that inflates it, with a plain table below.

Responsible for what a notebook still shows when it is looked at elsewhere: where scripts run, all that the page holds;
where none run, what stands below the frame.
"""

import base64
import zlib
from html import escape

HEIGHT = 760  # pixels of a frame that cannot tell how high it wants to be
INFLATE = """<!doctype html><meta charset="utf-8"><script>(async () => {{
const bytes = Uint8Array.from(atob("{data}"), (c) => c.charCodeAt(0));
const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
const text = await new Response(plain).text();
document.open(); document.write(text); document.close();
}})()</script>"""


def framed(page: str, title: str, plain: str) -> str:
    """A page as HTML in a frame of its own, and below it HTML without scripts.

    >>> text = framed("<p>hello", "A page", "<p>1 and 2</p>")
    >>> text.startswith('<iframe title="A page" sandbox="allow-scripts allow-downloads"'), "1 and 2" in text
    (True, True)
    """
    data = base64.b64encode(zlib.compress(page.encode(), 9)).decode()
    inner = escape(INFLATE.format(data=data), quote=True)
    style = f"display: block; width: 100%; height: {HEIGHT}px; border: 0"
    return (
        f'<iframe title="{escape(title)}" sandbox="allow-scripts allow-downloads" style="{style}" srcdoc="{inner}">'
        f"</iframe>{plain}"
    )
