from __future__ import annotations

from collections.abc import Mapping

import pytest

from converter.runtimes.local import LocalRuntime
from converter.targets.site import BY_CODE
from converter.targets.versions import OF_RUNTIME
from converter.tflite.file_testing import File
from ir.errors import RuntimeFailure
from ir.profile import Profile, Runtime


@pytest.mark.parametrize("runtime", [Runtime.TFLITE_RUNTIME, Runtime.LITERT], ids=lambda r: r.value)
def test_resolvers_have_what_the_table_says(runtime: Runtime) -> None:
    local = LocalRuntime.of(Profile(runtime=runtime))
    if not local.installed:
        pytest.skip(f"{local.name} is not installed")
    last = {code: OF_RUNTIME[runtime][op] for code, op in BY_CODE.items()}
    assert is_resolved(local, last)
    newer = [code for code, version in last.items() if is_resolved(local, {code: version + 1})]
    assert newer == []


def is_resolved(runtime: LocalRuntime, versions: Mapping[str, int]) -> bool:
    """Whether a runtime finds every operator of a file; its tensors need not fit them."""
    file = File()
    x, y = file.tensor((1,)), file.tensor((1,))
    for code, version in versions.items():
        file.op(code, [x], [y], version=version)
    try:
        runtime.load(file.finish([x], [y])).close()
    except RuntimeFailure as error:
        return "Didn't find op" not in error.found
    return True
