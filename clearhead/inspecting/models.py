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
    """The latest run in a saved watch, its items by their tokens' text, or else their indices.

    Needs neither torch nor the model.
    """
    seen = load_watch(path)
    layers = layers_of(seen)
    count = max(w.shape[-1] for w in layers.values())
    names, ids = seen.run(-1).names or {}, seen.layer(next(iter(layers))).sequence.key_ids
    tokens = [] if ids is None else [names[n] for n in ids.tolist() if n in names]
    return TextAttention(path.name, tuple(tokens if len(tokens) == count else map(str, range(count))), layers)


def from_folder(folder: Path, text: str) -> TextAttention:
    """One forward pass of a causal language model over a text, from local files. Raises FileError or InputError."""
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
        with torch.no_grad(), watch(model, memory=WATCH_BYTES) as seen:
            model(token_ids)
    except MemoryLimitError as error:
        raise InputError(
            f"{folder} over {token_ids.shape[1]} tokens would keep {in_bytes(error.needed)}, but inspect takes "
            f"{in_bytes(WATCH_BYTES)} at most: give a shorter text, or in Python save a few layers with "
            "clearhead.watch(model, layers=[0]) and inspect those."
        ) from None
    except InputError as error:
        raise InputError(
            f"{folder} cannot be inspected: {str(error).partition(': ')[0]}. Give a causal language model such as "
            "Llama, Qwen, Mistral, Gemma 2 or GPT-2."
        ) from None
    tokens = tuple(str(tokenizer.decode([token_id])) for token_id in token_ids[0].tolist())
    return TextAttention(folder.name, tokens, layers_of(seen))


def layers_of(seen: Watch) -> dict[int, Weights]:
    """Every watched layer's weights, each checked against the model's own output."""
    return {number: seen.layer(number).weights for number in seen.layers()}
