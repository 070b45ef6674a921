"""A program of PyTorch as a float .tflite: `python export_torch.py PROGRAM.pt2 FLOAT.tflite`.

Run as a file by the Python that has litert-torch (see `exporters`); so it imports nothing of ours.
"""

from __future__ import annotations

import sys


def main(program: str, output: str) -> None:
    """Writes the file; pictures, which PyTorch has channels first, come in with the channels last."""
    import litert_torch
    import torch

    exported = torch.export.load(program)
    args, kwargs = exported.example_inputs
    pictures = [i for i, value in enumerate(args) if getattr(value, "ndim", 0) == 4]
    module = litert_torch.to_channel_last_io(exported.module(), args=pictures)
    given = tuple(value.permute(0, 2, 3, 1) if i in pictures else value for i, value in enumerate(args))
    litert_torch.convert(module, given, kwargs or None).export(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
