"""The commands. What this package sets is read by libraries when they are first imported, so it stands here."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
