"""Attention of a transformers model, or of what was watched of one, as something to inspect.

Decides how a folder becomes a model, a tokenizer and a run over a text; watching is `clearhead.watch`'s.
"""

from pathlib import Path

from clearhead.attention_weights.matrix import Weights
from clearhead.errors import FileError, InputError
from clearhead.inspecting.heads import Inspected
from clearhead.watched.records import MemoryLimitError, in_bytes
from clearhead.watched.seen import Watch, load_watch
from clearhead.watching import watch

MEMORY = 1 << 31  # bytes that a watch may keep


def from_watch(path: Path) -> Inspected:
    """The latest run of a saved watch, its items named by number; needs neither torch nor the model."""
    seen = load_watch(path)
    layers = layers_of(seen)
    count = max(w.shape[-1] for w in layers.values())
    return Inspected(path.name, tuple(map(str, range(count))), layers)


def from_folder(folder: Path, text: str) -> Inspected:
    """One pass of a causal language model over a text; all files are local. Raises FileError or InputError."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise InputError(f"{folder} is a model, which needs PyTorch: pip install clearhead[transformers].") from None
    gguf = [path.name for path in sorted(folder.glob("*.gguf"))]
    more = {"gguf_file": gguf[0]} if gguf and not (folder / "config.json").exists() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **more)
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32, **more).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileError(f"{folder} is no model that transformers can load: {reason}") from None
    numbers = tokenizer(text, return_tensors="pt")["input_ids"]
    if not numbers.shape[1]:
        raise InputError("This text has no tokens: give another.")
    try:
        with torch.no_grad(), watch(model, memory=MEMORY) as seen:
            model(numbers)
    except MemoryLimitError as error:
        raise InputError(
            f"{folder} over {numbers.shape[1]} tokens would keep {in_bytes(error.needed)}, and inspect takes "
            f"{in_bytes(MEMORY)} at most: give a shorter text, or in Python save a few layers, by "
            "clearhead.watch(model, layers=[0]), and inspect those."
        ) from None
    except InputError as error:
        raise InputError(
            f"{folder} cannot be inspected: {str(error).partition(': ')[0]}. Give a causal language model such as "
            "Llama, Qwen, Mistral, Gemma 2 or GPT-2."
        ) from None
    tokens = tuple(str(tokenizer.decode([number])) for number in numbers[0].tolist())
    return Inspected(folder.name, tokens, layers_of(seen))


def layers_of(seen: Watch) -> dict[int, Weights]:
    """Every watched layer's weights, each checked against the model's own output."""
    return {number: seen.layer(number).weights for number in seen.layers()}
