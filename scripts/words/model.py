"""A word by what SmolLM2-135M-Instruct makes of it: the hidden state after some layers, at the end of “The word …”."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from words.linear import Matrix
from words.sources import GGUF
from words.wordnet import NUMBER

_LAYERS = 9  # of 30
_BATCH = 128
_SOME_NUMBER = "12"


class Model:
    """The tokenizer and the first layers, widened to float32, on one thread."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
        model = AutoModel.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32).eval()
        model.layers, model.norm = model.layers[:_LAYERS], torch.nn.Identity()
        self._model = model

    def whole_words(self) -> list[str]:
        """The tokens that are words with a space before them, in the tokenizer's order, roughly most usual first."""
        by_id = sorted(self._tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        return [token[1:] for token, _ in by_id if re.fullmatch("Ġ[A-Za-z]+", token)]

    def pieces(self, words: list[str]) -> list[int]:
        """Into how many tokens each word is cut."""
        return [len(ids) for ids in self._tokenizer([f" {word}" for word in words])["input_ids"]]

    def states(self, words: list[str]) -> Matrix:
        """One state a word (words, 576), each word as it is written: names with a capital."""
        prompts = [f"<|endoftext|>The word {_SOME_NUMBER if word == NUMBER else word}" for word in words]
        ids = self._tokenizer(prompts)["input_ids"]
        of_length = defaultdict(list)  # a batch has one length: no padding, which would need a mask
        for i, tokens in enumerate(ids):
            of_length[len(tokens)].append(i)
        states = np.zeros((len(words), self._model.config.hidden_size), np.float32)
        for group in of_length.values():
            for batch in (group[i : i + _BATCH] for i in range(0, len(group), _BATCH)):
                with torch.no_grad():
                    output = self._model(torch.tensor([ids[i] for i in batch]), use_cache=False)
                states[batch] = output.last_hidden_state[:, -1].numpy()
        return states
