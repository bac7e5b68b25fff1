"""`clearhead view`: serves the page, prints its address, and opens it in a browser."""

import secrets
import webbrowser
from collections.abc import Sequence
from urllib.parse import urlencode

from clearhead.errors import InputError, MachineError
from clearhead.files.text import read_text

TOKEN_BYTES = 16  # bytes of the secret in the address


def open_page(words: Sequence[str], port: int | None, browser: bool) -> None:
    """Serve until Ctrl-C. Raises InputError for a port that is taken, MachineError if the extra is missing."""
    try:
        from clearhead.view import server
    except ImportError as error:
        raise MachineError("clearhead view needs starlette and uvicorn: pip install 'clearhead[view]'.") from error
    text = read_text(words) if words else None
    try:
        listener = server.listen(port)
    except OSError as error:
        raise InputError(f"--port {port} cannot be used ({error.strerror}): give another, or none.") from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    address = f"http://{server.HOST}:{listener.getsockname()[1]}/{token}/"
    if text is not None:
        address += "#" + urlencode({"text": " ".join(text.split()), "step": "0"})

    def ready() -> None:
        print(f"The page is at {address}", flush=True)
        if not (browser and webbrowser.open(address)):
            print("Open it in a browser on this computer.", flush=True)
        print("Ctrl-C ends it.", flush=True)

    server.serve(listener, token, ready)
