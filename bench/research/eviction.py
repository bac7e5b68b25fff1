"""Quality after eviction: how well a model goes on from a cache that was cut to a share of its keys after the prompt.

    python -m bench eviction [tiny] [smollm] [--texts 20]

Two tasks on held-out text (tests/model/held_out.txt). "going on": nats a token of the text that follows the prompt.
"copying": the prompt's end repeats the beginning of a passage that stood at its start, and the passage goes on; the
share of its tokens that the model finds. Every method keeps the same number of keys in each key head of each layer, and
all are measured on the same texts. `smollm` is SmolLM2-135M, which scripts/model installs.
"""

import argparse
import copy
import sys
from pathlib import Path

import numpy as np

import clearhead
import clearhead.model
from clearhead import eviction
from clearhead.model.decoding import Decoding
from clearhead.model.objective import token_losses

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tests/model/held_out.txt").read_text("utf-8")
SHARES = (0.5, 0.25, 0.1)
FIRST = 4  # of StreamingLLM
RNG = np.random.default_rng(0)


def scores_of(w, v, window):
    """Every score of one layer's keys, (key heads, keys)."""
    found = {"tova": eviction.tova(w), "h2o": eviction.h2o(w), "snapkv": eviction.snapkv(w, window=window)}
    found |= {"tova, values": eviction.tova(w, v=v), "h2o, values": eviction.h2o(w, v=v)}
    found |= {"snapkv, values": eviction.snapkv(w, window=window, v=v)}
    nothing = np.zeros_like(found["h2o"])  # of equals, the later is kept
    return found | {"random": RNG.random(nothing.shape), "recent": nothing, "first and recent": nothing}


METHODS = {  # the keys that each keeps, whatever they score, of so many
    "random": lambda n: {},
    "recent": lambda n: {},
    "first and recent": lambda n: {"first": FIRST},
    "h2o": lambda n: {"recent": n // 2},
    "h2o, values": lambda n: {"recent": n // 2},
    "tova": lambda n: {},
    "tova, values": lambda n: {},
    "snapkv": lambda n: {},
    "snapkv, values": lambda n: {},
}


class Tiny:
    """The model that ships with clearhead."""

    name, prompt, more, span, repeated, filler, window = "the shipped model", 192, 48, 40, 12, 60, 8

    def __init__(self):
        self.model = clearhead.model.load()
        self.start, *self.tokens = self.model.tokenizer.encode(TEXT)

    def read(self, tokens):
        """The state after a prompt, and each layer's weights and values."""
        reading = Decoding(self.model)
        reading.read(tokens)
        return reading, [(layer.weights, layer.v) for layer in self.model.forward(tokens).layers]

    def go_on(self, reading, kept, tokens):
        """The logits after the prompt's last token and each of `tokens` but the last, from a cut cache."""
        own = Decoding(self.model)
        own.length, own.caches = reading.length, [cache.fork() for cache in reading.caches]
        for cache, keys in zip(own.caches, kept or (), strict=bool(kept)):
            cache.keep(keys)
        return np.stack([own.read([token]) for token in tokens])


class SmolLM2:
    """SmolLM2-135M-Instruct by transformers, cut by the adapter."""

    name, prompt, more, span, repeated, filler, window = "SmolLM2-135M", 1024, 64, 48, 16, 960, 32

    def __init__(self):
        sys.path.insert(0, str(ROOT / "examples"))
        from smollm import load  # type: ignore[import-not-found]

        tokenizer, self.model = load()
        self.model.set_attn_implementation("clearhead")
        self.start, self.tokens = None, tokenizer(TEXT)["input_ids"]

    def read(self, tokens):
        """The cache after a prompt, and each layer's weights and values."""
        import torch

        with torch.no_grad(), clearhead.watch(self.model) as seen:
            cache = self.model(torch.tensor([tokens]), logits_to_keep=1, use_cache=True).past_key_values
        return cache, [(seen.layer(n).weights, seen.layer(n).values) for n in seen.layers()]

    def go_on(self, cache, kept, tokens):
        """The logits after each of `tokens`, from a cut cache."""
        import torch

        from clearhead.adapters.transformers.eviction import keep

        own = copy.deepcopy(cache)
        if kept:
            keep(own, kept)
        with torch.no_grad():
            return self.model(torch.tensor([list(tokens)]), past_key_values=own).logits[0].numpy()


def texts(model, count):
    """Prompts and what follows each, for both tasks: (task, prompt, following)."""
    tokens, size = model.tokens, model.prompt + model.more
    starts = np.linspace(0, len(tokens) - 2 * size, count).astype(int)
    head = [] if model.start is None else [model.start]
    for start in starts:
        part = tokens[start : start + size]
        yield "going on", head + part[: model.prompt - len(head)], part[model.prompt - len(head) :][: model.more]
        there = (start + len(tokens) // 2) % (len(tokens) - model.span)
        passage = tokens[there : there + model.span]
        said = [*head, *passage, *part[: model.filler], *passage[: model.repeated]]
        yield "copying", said, passage[model.repeated :]


def measured(model, count):
    """Sums over texts: {task: {(method, share): [nats, hits, tokens]}}."""
    found = {"going on": {}, "copying": {}}
    for number, (task, prompt, following) in enumerate(texts(model, count)):
        *prompt, last = prompt  # fed after the cut, as in generating
        state, layers = model.read(prompt)
        scores = [scores_of(w, v, model.window) for w, v in layers]
        for share in (1.0, *SHARES):
            for method in METHODS if share < 1 else ["all keys"]:
                size, kept = round(share * len(prompt)), None
                if method in METHODS:
                    kept = [eviction.most(one[method], count=size, **METHODS[method](size)) for one in scores]
                logits = model.go_on(state, kept, [last, *following[:-1]])
                nats = token_losses(logits, list(following))
                hits = (logits.argmax(-1) == np.array(following)).sum()
                total = found[task].setdefault((method, share), np.zeros(3))
                total += nats.sum(), hits, len(following)
        print(f"\r{number + 1} of {2 * count} texts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def shown(model, found, count):
    """A table in Markdown."""
    ways = ["all keys", *METHODS]
    copied = model.span + model.filler + model.repeated + (model.start is not None)
    print(
        f"\n{model.name}: {count} prompts of {model.prompt} tokens to go on from, and {count} of {copied} to copy in\n"
    )
    columns = [f"{task}, {share:.0%}" for task in found for share in SHARES]
    print(f"| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for way in ways:
        cells = []
        for task, sums in found.items():
            for share in SHARES:
                nats, hits, tokens = sums[way, 1.0 if way == "all keys" else share]
                cells.append(f"{nats / tokens:.2f}" if task == "going on" else f"{hits / tokens:.0%}")
        print(f"| {way} | {' | '.join(cells)} |")


def main():
    """Measure the models that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=["tiny", "smollm", []], default=["tiny"])
    parser.add_argument("--texts", type=int, default=20, help="prompts of each task (default: 20)")
    asked = parser.parse_args()
    for name in asked.models:
        model = {"tiny": Tiny, "smollm": SmolLM2}[name]()
        shown(model, measured(model, asked.texts), asked.texts)


if __name__ == "__main__":
    main()
