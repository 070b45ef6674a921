"""Smaller weights: codebooks for blocks of them, and pruning."""
