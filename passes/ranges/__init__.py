"""Passes that choose the reals each activation is quantized over, and what they know them from."""
