"""Lets Debian's Bazel 4.2.3 build without a network in a workspace that uses this one.

Its own packages name repositories that Bazel would fetch; the stubs stand in for them (see WORKSPACE).
"""

_STUBS = ["remote_coverage_tools", "rules_cc", "rules_java", "rules_proto"]

def _stub_impl(repository_ctx):
    folder = repository_ctx.path(Label("//tools/bazel:stubs/" + repository_ctx.attr.stub + "/WORKSPACE")).dirname
    for entry in folder.readdir():
        repository_ctx.symlink(entry, entry.basename)

_stub = repository_rule(
    implementation = _stub_impl,
    attrs = {"stub": attr.string()},
)

def offline_repositories():
    """Declares the stubs that the workspace has not declared itself."""
    for stub in _STUBS:
        if stub not in native.existing_rules():
            _stub(name = stub, stub = stub)
