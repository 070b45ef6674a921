from __future__ import annotations

from tools.measure_memory import SIDE, peaks


def test_memory_does_not_grow_with_the_images() -> None:
    few, many = peaks([50, 400])
    images = 350 * SIDE * SIDE * 3 * 4
    assert many - few < images / 4  # that many bytes if they were kept; what an allocator holds varies by some MB
