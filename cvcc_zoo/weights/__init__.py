"""Files of trained weights: published ones with their cards, and checkpoints."""
