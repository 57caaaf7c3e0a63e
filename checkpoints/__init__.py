"""Trained models on disk, in our format and in published ones."""
