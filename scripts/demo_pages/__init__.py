"""The page as static files that need no installation: Learn, and Read of the small model and of SmolLM2.

    python scripts/demo_pages FOLDER

A demo page is the page of `clearhead view` with one thing exchanged: its questions are answered by the modules in
`static`, in the browser. `tests/demo` holds their answers against Python's. It works on any static host and from disk,
where a page may fetch nothing: so each data file is a script.
"""

import base64
import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors

import clearhead.model
import clearhead.words
from clearhead.reading.kept import question
from clearhead.view import page
from clearhead.view.answers import answer
from demo_pages import smollm2

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    f"form-action 'none'; {page.TRUSTED_TYPES}"
)
Recording = Callable[[], dict[str, Any] | None]
WORDS = ("data", "wording", "words", "forms", "pieces", "vectors", "plane")
MODEL = ("tokenizer", "model")
LEARN = (*WORDS, *MODEL, "learned", "consequences", "quiz", "learn")
READ = ("data", "wording", *MODEL, "heads", "lines", "pooled", "measures", "recordings", "read")
FIRST_TEXT = "a red apple and a green pear"  # as clearhead/view/static/learn/state.js has it
TEXT = (
    "The whale swam under the ship. The captain saw the whale, and the men in the boats saw the white whale. The sea "
    "was calm and the wind was low, but the whale was near the ship. Then the captain cried out, and the boats went "
    "down into the sea. The men pulled hard at the oars; the white whale turned, and the sea was full of foam. The "
    "captain stood in the boat, and the men saw the captain. The white whale swam under the boats, and the boats were "
    "broken, and the men were in the sea. The ship came near, and the men were drawn out of the sea. But the captain "
    "was not in the ship, and the captain was not in the boats; and the white whale swam down into the sea."
)  # it repeats, in words that the small model knows: heads that copy have something to do
OPENING = {
    "text": TEXT,
    "state": "layer=3&heads=3&row=168",  # such a head, at “not”, which looks at what came after the first “not”
    "note": "Computed in this page by the small model’s own weights: what you let it read stays here. For another "
    "model: pip install 'clearhead[view]', then clearhead view --model FOLDER.",
}
LEARN_NOTE = (
    "Computed in this page: what you type stays here. To write it as one file: pip install 'clearhead[view]', then "
    "clearhead view."
)
SCREENS = {"Learn": "index.html", "Read": "read.html"}
DOCS = {"Docs": "../index.html"}


def write_demo(folder: Path, *, recording: Recording | None = smollm2.recording) -> None:
    """Write the demo: index.html (Learn), read.html, what they load, and smollm2/ where that model is installed.

    The pages link to ../index.html, the documentation. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_code(folder, page.LEARN, LEARN)
    write_code(folder, page.READ, READ)
    write_data(folder, "words", words_data())
    write_data(folder, "model", model_data())
    recorded = recording() if recording else None
    screens = SCREENS | ({smollm2.SCREEN: "smollm2/index.html"} if recorded else {}) | DOCS
    learn = {"known": first_answers(), "screens": screens, "opening": {"note": LEARN_NOTE}}
    write_page(folder / "index.html", page.LEARN, learn, ("words", "model"))
    write_page(folder / "read.html", page.READ, {"screens": screens, "opening": OPENING}, ("model",))
    if recorded:
        own = folder / "smollm2"
        own.mkdir(exist_ok=True)
        write_data(own, "recording", recorded)
        above = {name: f"../{address}" for name, address in screens.items()}
        kept = {"screens": above, "opening": smollm2.OPENING}
        write_page(own / "index.html", page.READ, kept, ("recording",), up="../")


def write_page(path: Path, screen: page.Screen, kept: Mapping[str, Any], data: tuple[str, ...], up: str = "") -> None:
    """A page that loads its code and its data."""
    scripts = f'<script src="{up}{screen.name}.js"></script>\n' + "".join(
        f'<script src="{name}.js" data-file="{name}" async></script>\n' for name in data
    )
    head = page.HTML_HEAD.format(title=screen.title) + (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n{page.VIEWPORT}'
        f'<link rel="stylesheet" href="{up}{screen.name}.css">\n'
    )
    body = page.HTML_BODY.format(name=screen.name).replace("</body>", f"{scripts}</body>")
    told = json.dumps({"known": {}, "live": True, **kept}).replace("<", "\\u003c")
    kept_element = f'<script type="application/json" id="kept">{told}</script>\n'
    path.write_text((head + body).replace("<script", f"{kept_element}<script", 1), "utf-8")


def write_code(folder: Path, screen: page.Screen, answers: tuple[str, ...]) -> None:
    """A screen's styles and its script, in which the modules that answer stand between those shared and its own."""
    styles = "\n".join((page.STATIC / name).read_text("utf-8") for name in screen.styles)
    (folder / f"{screen.name}.css").write_text(styles, "utf-8")
    (folder / f"{screen.name}.js").write_text(page.joined_script(sources(screen, answers)), "utf-8")


def sources(screen: page.Screen, answers: tuple[str, ...]) -> list[str]:
    """A demo page's modules, each after those that it imports."""
    own = [page.module_text(name) for name in screen.modules]
    last = len(own) - 2 if screen is page.LEARN else len(own) - 1  # where the first question is asked
    return [*own[:last], *((STATIC / f"{name}.js").read_text("utf-8") for name in answers), *own[last:]]


def write_data(folder: Path, name: str, data: Mapping[str, Any]) -> None:
    """A data file: a script that leaves its contents in `clearheadData`."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    (folder / f"{name}.js").write_text(f"(self.clearheadData??={{}}).{name}={text};\n", "utf-8")


def first_answers() -> dict[str, Any]:
    """What the page shows before its data have come."""
    asked: list[tuple[str, dict[str, Any]]] = [("sentence", {"text": FIRST_TEXT}), ("learned", {"text": FIRST_TEXT})]
    return {question(what, about): answer(what, about) for what, about in asked}


def words_data() -> dict[str, str]:
    """The shipped word vectors in 8 bits, their words, and irregular forms."""
    folder = resources.files(clearhead.words)
    tensors = load_tensors(folder.joinpath("words.safetensors").read_bytes())
    texts = {name: folder.joinpath(f"{name}.txt").read_text("utf-8").strip() for name in ("vocabulary", "irregular")}
    return texts | {name: in_base64(x) for name, x in tensors.items()}


def model_data() -> dict[str, Any]:
    """The small model in 8 bits, with the pairs of its tokens."""
    folder = resources.files(clearhead.model)
    settings = json.loads(folder.joinpath("tiny.json").read_text("utf-8"))
    tensors = load_tensors(folder.joinpath("tiny.safetensors").read_bytes())
    shown = {name: settings[name] for name in ("merges", "heads", "context")}
    return shown | {"tensors": {name: in_base64(x) for name, x in tensors.items()}}


def in_base64(x: np.ndarray[Any, Any]) -> str:
    """An array's bytes."""
    return base64.b64encode(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()).decode()
