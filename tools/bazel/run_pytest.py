"""Runs pytest on folders, as a test of Bazel: what is written goes where Bazel expects it.

run_pytest.py FOLDER...
"""

import os
import sys

# Bazel's name for an environment variable -> what pytest calls it.
_OPTIONS = {"XML_OUTPUT_FILE": "--junitxml={}", "TESTBRIDGE_TEST_ONLY": "-k={}"}


def run(folders: list[str]) -> int:
    """The exit status of pytest on `folders`."""
    import pytest

    options = [text.format(os.environ[name]) for name, text in _OPTIONS.items() if os.environ.get(name)]
    return pytest.main(["-q", "-p", "no:cacheprovider", *options, *folders])


if __name__ == "__main__":
    scratch = os.environ.get("TEST_TMPDIR")
    if scratch:
        # The folder of the test cannot be written to.
        os.environ.update(KERAS_HOME=scratch, HYPOTHESIS_STORAGE_DIRECTORY=scratch, HOME=scratch)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(run(sys.argv[1:]))
