"""`clearhead view`: serves the page, prints its address, and opens it in a browser."""

import secrets
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from clearhead.errors import FileError, InputError, MachineError
from clearhead.files.text import read_text
from clearhead.reading.answers import Reader
from clearhead.reading.readings import Reading
from clearhead.view.answers import LONGEST_SENTENCE

TOKEN_BYTES = 16  # bytes of the secret in the address
LONGEST_ADDRESS = 120  # characters of one that is printed: one for a long text would fill the screen
FIRST_TEXT = "The river was wide. The boat crossed the river, and the boat came back."
SMALL = "tiny"


@dataclass(frozen=True)
class ViewOptions:
    """The command's options; raises InputError or FileError for those that do not go together."""

    words: tuple[str, ...] = ()  # a text, a file that holds one, or -
    model: str | None = None  # a folder, or "tiny"
    watches: tuple[Path, ...] = ()
    image: Path | None = None
    tokens: int = 0  # to generate
    port: int | None = None
    browser: bool = True

    def __post_init__(self) -> None:
        if self.watches and (self.model or self.words):
            given = "--model" if self.model else "a text"
            raise InputError(f"--watch holds a model's attention over its text already: leave out {given}.")
        if self.model and self.model != SMALL and not Path(self.model).is_dir():
            raise FileError(f"{self.model} is not a folder with a model: give one, or {SMALL} for the small model.")
        if self.image and not (self.watches or (self.model and self.model != SMALL)):
            raise InputError(f"--image {self.image} goes with --model FOLDER or --watch: the small model reads text.")
        if self.tokens and (not self.model or self.model == SMALL or self.image):
            raise InputError(f"--generate {self.tokens} goes with --model FOLDER and a text: leave it out.")
        if self.model and self.model != SMALL and not (self.words or self.image):
            raise InputError(f"Nothing for {self.model} to read: give a text, a file that holds one, or --image.")

    @property
    def reads(self) -> bool:
        """Whether the page opens at Read."""
        return bool(self.watches or self.model)


def open_page(options: ViewOptions) -> None:
    """Serve until Ctrl-C. Raises InputError for a port that is taken, MachineError if the extra is missing."""
    text = read_text(options.words) if options.words else None
    if text is not None and not text.strip():
        raise InputError("The text is empty: give a sentence, or leave it out for the page's own.")
    if not options.reads:
        if text is not None and len(text) > LONGEST_SENTENCE:
            raise InputError(
                f"The text has {len(text)} characters, and the page for learning takes {LONGEST_SENTENCE}: give a "
                f"sentence of it, or read it with --model {SMALL}."
            )
        words = " ".join((text or FIRST_TEXT).split())
        state = urlencode({"text": " ".join(text.split()), "step": "0"}) if text is not None else ""
        serve_page(lambda: Reader(small_reading(words)), "", state, options)
        return
    readings = find_readings(options, text)  # errors come before the page
    beside = "panes=2&reading=0&reading2=1" if len(options.watches) == len(readings) == 2 else ""
    serve_page(lambda: Reader(readings), "read", beside, options)


def find_readings(options: ViewOptions, text: str | None) -> list[Reading]:
    """What the options name: saved watches, or a model over a text or a picture."""
    if options.watches:
        from clearhead.reading.sources import watch_file

        found = [reading for path in options.watches for reading in watch_file(path)]
        return [with_picture(reading, options.image) for reading in found] if options.image else found
    if options.model == SMALL:
        return small_reading(text or FIRST_TEXT)
    from clearhead.reading import models

    folder = Path(options.model or "")
    if options.image:
        return [models.from_picture(folder, options.image)]
    return [models.from_folder(folder, text or "", options.tokens)]


def small_reading(text: str) -> list[Reading]:
    """The small model over a text."""
    from clearhead.reading.sources import from_small_model

    return [from_small_model(text)]


def with_picture(reading: Reading, path: Path) -> Reading:
    """A reading with a picture below its patches."""
    from clearhead.reading.models import png_of, read_picture

    if all(stack.grid is None for stack in reading.stacks.values()):
        raise InputError(f"{reading.name} has no patches for the picture {path} to lie below: leave the picture out.")
    return replace(reading, picture=png_of(read_picture(path)))


def serve_page(find_reader: Callable[[], Reader], screen: str, state: str, options: ViewOptions) -> None:
    """Serve the page, and open it at a screen and a state of it."""
    try:
        from clearhead.view import server
    except ImportError as error:
        raise MachineError("clearhead view needs starlette and uvicorn: pip install 'clearhead[view]'.") from error
    try:
        listener = server.listen(options.port)
    except OSError as error:
        raise InputError(f"port {options.port} cannot be used ({error.strerror}): give another, or none.") from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    start = f"{screen}#{state}" if state else screen
    home = f"http://{server.HOST}:{listener.getsockname()[1]}/{token}/"
    address = home + (start if len(home + start) <= LONGEST_ADDRESS else "start")

    def ready() -> None:
        print(f"The page is at {address}", flush=True)
        if not (options.browser and webbrowser.open(address)):
            print("Open it in a browser on this computer.", flush=True)
        print("Ctrl-C ends it.", flush=True)

    server.serve(listener, token, find_reader, ready, start)
