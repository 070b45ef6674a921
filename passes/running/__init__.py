"""How passes are run: pipelines by name and as text, the runner, and the guard that undoes what does harm."""
