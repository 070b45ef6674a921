"""Passes that move scales and shifts between the channels of neighbouring layers; the float function stays."""
