"""Passes that change which operators compute the network and keep its float function."""
