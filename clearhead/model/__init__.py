"""A small language model: `load()` it, let it continue a text, look at every value it computes (docs/model.md)."""

from clearhead.model.block import LayerPass
from clearhead.model.decoding import Decoding
from clearhead.model.heads import HeadScores, head_scores
from clearhead.model.model import Forward, Model, load
from clearhead.model.objective import Loss
from clearhead.model.tokens import Tokenizer

__all__ = ["Decoding", "Forward", "HeadScores", "LayerPass", "Loss", "Model", "Tokenizer", "head_scores", "load"]
