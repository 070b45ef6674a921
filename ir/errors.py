"""The one family of errors that a user's model or arguments can cause.

Every room raises these, so they stand at the bottom; `converter` re-exports them under its own name.
`assert` is for our bugs, these are for the user's to correct: the commands print one sentence and exit with status 1.
"""

from __future__ import annotations


class ExplainedError(Exception):
    """One clear sentence.

    Args:
      expected: what the tool can work with, e.g. "a finite weight in every element".
      found: what was there instead, e.g. "3 NaN values".
      where: the place in the user's words: a file, a layer, an operator.
      fix: what to do about it.
    """

    def __init__(self, *, expected: str, found: str, where: str, fix: str) -> None:
        self.expected, self.found, self.where, self.fix = expected, found, where, fix
        super().__init__(f"{where}: expected {expected}, found {found}; {fix}.")


def first_words(error: BaseException, most: int = 300) -> str:
    """The beginning of what an error of others says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:most] + ("..." if len(text) > most else "")


class ConversionError(ExplainedError):
    """Something about the user's model, data or options stops the work."""


class ProofError(ExplainedError):
    """A file that was made does not run, or not as the emulator says: our fault, not the user's."""


class ModelError(ConversionError):
    """The model cannot be read, or holds something that cannot be converted."""


class DataError(ConversionError):
    """Calibration or evaluation data cannot be used."""


class OptionError(ConversionError):
    """A flag, a pass option or a combination of them makes no sense."""


class OutputError(ConversionError):
    """The result cannot be written."""


class RuntimeFailure(ConversionError):
    """A runtime or device that was asked to run a model is missing or failed."""


class GateError(ConversionError):
    """The file could be made, but is not as good as was asked, or that cannot be judged."""
