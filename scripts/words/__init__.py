"""How the word vectors in clearhead/words are made: `scripts/train_words` runs these steps."""
