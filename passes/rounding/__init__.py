"""Passes that choose the integers of weights and biases, given their scales."""
