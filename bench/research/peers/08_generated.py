"""What each generated token was read from (inseq): attention of the position before it, by head and on average."""

import inseq
import torch

from bench.research.models import eager_smollm, run
from bench.research.prompts import GENERATED, HEAD, opening


def answer(loaded, length):
    """Attribute a greedy text; positions that come later are NaN, and no one reads the last."""
    tokenizer, model = loaded
    lens = inseq.load_model(model, "attention", tokenizer=tokenizer)
    done = lens.attribute(opening(tokenizer, length), generation_args=GENERATED, show_progress=False)
    first = done.sequence_attributions[0]
    weights = torch.nan_to_num(first.target_attributions).permute(2, 3, 1, 0)[..., :-1]
    return {"mean": weights.mean((0, 1)), "head": weights[HEAD], "tokens": [token.id for token in first.target]}


if __name__ == "__main__":
    run(eager_smollm, answer, 128)
