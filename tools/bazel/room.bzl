"""A room of the project: its library, and its tests as one target that runs pytest."""

def room(name, deps = [], data = []):
    """Declares the library `name`, its files `name`_files and, where the room has tests, `name`_test.

    Args:
      name: the folder of the room, which is also the Python package.
      deps: the rooms that this one may import.
      data: files that the room, or a test of it, reads.
    """
    tests = native.glob(["**/*_test.py", "**/conftest.py"], allow_empty = True)
    sources = native.glob(["**/*.py"], exclude = tests, allow_empty = True)
    native.py_library(
        name = name,
        srcs = sources,
        data = data,
        visibility = ["//visibility:public"],
        deps = deps,
    )

    # The same as plain files, for workspaces that have no rules for Python.
    native.filegroup(
        name = name + "_files",
        srcs = sources,
        visibility = ["//visibility:public"],
    )
    if tests:
        native.py_test(
            name = name + "_test",
            timeout = "long",
            srcs = ["//tools/bazel:run_pytest.py"],
            args = [name],
            # requirements.txt stands for the packages of .venv, which Bazel does not see.
            data = tests + ["//:pyproject.toml", "//:requirements.txt"],
            legacy_create_init = False,
            main = "//tools/bazel:run_pytest.py",
            deps = [":" + name],
        )
