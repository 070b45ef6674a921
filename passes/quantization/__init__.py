"""From a float graph to an integer one: parameters on every value, their simulation in float, the lowering."""
