"""The attention of a transformers model over a text, or of a saved watch.

Responsible for loading a model and its tokenizer from a folder and running them. Not for recording the attention,
which `clearhead.watch` does.
"""

from pathlib import Path

from clearhead.attention_weights.matrix import Weights
from clearhead.errors import FileError, InputError
from clearhead.inspecting.heads import TextAttention
from clearhead.watched.records import MemoryLimitError, in_bytes
from clearhead.watched.seen import Watch, load_watch
from clearhead.watching import watch

WATCH_BYTES = 1 << 31  # limit on what a watch may record


def from_watch(path: Path) -> TextAttention:
    """The latest run in a saved watch; needs neither torch nor the model."""
    seen = load_watch(path)
    layers = layers_of(seen)
    count = max(w.shape[-1] for w in layers.values())
    return TextAttention(path.name, item_names(seen, count), layers)


def item_names(seen: Watch, count: int) -> tuple[str, ...]:
    """The text of each token, or its number in the vocabulary, or else its index."""
    for named in (seen.tokens, seen.token_ids):
        try:
            names = tuple(map(str, named()))
        except InputError:
            continue
        if len(names) == count:
            return names
    return tuple(map(str, range(count)))


def from_folder(folder: Path, text: str) -> TextAttention:
    """One forward pass of a language model over a text, from local files. Raises FileError or InputError."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise InputError(f"{folder} is a model, which needs PyTorch: pip install clearhead[transformers].") from None
    gguf = [path.name for path in sorted(folder.glob("*.gguf"))]
    options = {"gguf_file": gguf[0]} if gguf and not (folder / "config.json").exists() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, **options
        ).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileError(f"transformers cannot load a model from {folder}: {reason}") from None
    token_ids = tokenizer(text, return_tensors="pt")["input_ids"]
    if not token_ids.shape[1]:
        raise InputError("This text has no tokens: give another.")
    try:
        with torch.no_grad(), watch(model, memory=WATCH_BYTES, tokenizer=tokenizer) as seen:
            model(token_ids)
    except MemoryLimitError as error:
        raise InputError(
            f"{folder} over {token_ids.shape[1]} tokens would keep {in_bytes(error.needed)}, but inspect takes "
            f"{in_bytes(WATCH_BYTES)} at most: give a shorter text, or in Python save a few layers with "
            "clearhead.watch(model, layers=[0]) and inspect those."
        ) from None
    except InputError as error:
        raise InputError(
            f"{folder} cannot be inspected: {str(error).partition(': ')[0]}. Give a language model such as Llama, "
            "Qwen, Mistral, Gemma, GPT-2 or BERT."
        ) from None
    return TextAttention(folder.name, item_names(seen, token_ids.shape[1]), layers_of(seen))


def layers_of(seen: Watch) -> dict[int, Weights]:
    """Every watched layer's weights, each checked against the model's own output."""
    return {number: seen.layer(number).weights for number in seen.layers()}
