"""How many bits for which layer: sensitivities, a budget, and the exact choice (docs/methods/hawq.md)."""
