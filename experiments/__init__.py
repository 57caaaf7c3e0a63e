"""A training run: its data, its first weights, its folds, and what it leaves."""
