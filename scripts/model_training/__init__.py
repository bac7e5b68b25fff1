"""How the small language model in clearhead/model is made: `scripts/train_model` runs these steps."""
