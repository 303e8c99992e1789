"""Training from a store to a run: what the command, the searches and the ablation share."""
