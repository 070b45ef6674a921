"""The commands. What this package sets is read by libraries when they are first imported, so it stands here."""

import os
from importlib.util import find_spec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if find_spec("tensorflow"):  # whatever Keras's own file says: the same command, the same bytes
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
