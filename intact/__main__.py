"""`python -m intact`: the command `intact`."""

from tools.main import run

run()
