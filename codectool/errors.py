"""All errors that codectool raises deliberately.

CodectoolError
├── UsageError
├── AudioError
├── TokensError (also a ValueError)
├── ContainerError
│   ├── NotHcdError
│   ├── UnsupportedError
│   ├── DamagedError
│   └── TruncatedError
├── CheckpointError
│   ├── UnsafeCheckpointError
│   ├── WeightsMissingError
│   └── FingerprintError
├── ConfigError
└── TrainingError

CodectoolWarning (a UserWarning) is the category of all warnings but those about renamed names.

A message is one line: the file or option, the reason, and what to do next, with commands and
options in backticks. The command line prints it and exits with code 2.
"""

from __future__ import annotations


class CodectoolError(Exception):
    """Base class of the errors of codectool."""


class CodectoolWarning(UserWarning):
    """An input is used as it is, but may not be what was meant."""


class UsageError(CodectoolError):
    """The request is invalid, for example because options contradict each other."""


class AudioError(CodectoolError):
    """The audio cannot be read or written, or has samples that are NaN or infinite."""


class TokensError(CodectoolError, ValueError):
    """Tokens or their metadata are invalid or contradict each other."""


class ContainerError(CodectoolError):
    """A `.hcd` file cannot be read or written."""


class NotHcdError(ContainerError):
    """The data do not start with the `.hcd` magic number."""


class UnsupportedError(ContainerError):
    """The file has a later version or uses a feature that this version does not know."""


class DamagedError(ContainerError):
    """A check failed, or fields of the file contradict each other."""


class TruncatedError(ContainerError):
    """The data end before the end of the file."""


class CheckpointError(CodectoolError):
    """The weights cannot be used."""


class UnsafeCheckpointError(CheckpointError):
    """The checkpoint is a pickle that refers to code, which is never run."""


class WeightsMissingError(CheckpointError):
    """No weights were given, and none are known for the request."""


class FingerprintError(CheckpointError):
    """The tokens were made with another codec or different weights."""


class ConfigError(CodectoolError, ValueError):  # msgspec adds the path to a ValueError
    """A config has missing, unknown or invalid values."""


class TrainingError(CodectoolError):
    """A training run cannot continue."""
