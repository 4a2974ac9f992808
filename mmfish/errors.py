"""Errors that a user can correct."""


class UsageError(Exception):
    """A run cannot start as asked; the message is one sentence that says why and what to do.

    The tools print it without a traceback.
    """


class MissingDataError(UsageError):
    """A data set that a config asks for is not there, or not whole."""


class DataError(UsageError):
    """A data set holds what cannot be trained on or tested with: a file, an annotation."""


class CheckpointError(UsageError):
    """A checkpoint cannot be read or written, or does not fit the model."""


class ConfigError(UsageError, ValueError):
    """A setting is out of its range, or does not fit the others."""


class TrainingError(UsageError):
    """A training cannot go on: a loss or a weight is NaN or Inf."""
