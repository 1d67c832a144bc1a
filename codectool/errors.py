"""Everything that can go wrong, as one tree.

CodectoolError                    exit code 2; the message is one line that says what to do next
├── UsageError                    the request makes no sense (options that contradict each other)
├── AudioError                    no audio that we can read, or NaN or infinite samples
├── TokensError                   tokens that contradict themselves
├── ContainerError                a `.hcd` file that cannot be read
│   ├── NotHcdError               not this format at all
│   ├── UnsupportedError          made by a later version, or needs a feature this one lacks
│   ├── DamagedError              a check failed, or fields contradict each other
│   └── TruncatedError            the data end too early
├── CheckpointError               weights that cannot be used
│   ├── UnsafeCheckpointError     a pickle that names code we do not run
│   ├── WeightsMissingError       nobody told us where the weights are
│   └── FingerprintError          other weights than the tokens were made with
├── ConfigError                   hyper-parameters that describe no model, or a wrong recipe
└── TrainingError                 a training run that cannot go on
"""

from __future__ import annotations


class CodectoolError(Exception):
    """Base of every error that codectool raises on purpose."""


class UsageError(CodectoolError):
    """The request itself makes no sense."""


class AudioError(CodectoolError):
    """The audio cannot be read, or cannot be encoded."""


class TokensError(CodectoolError, ValueError):
    """Tokens, or the facts that go with them, contradict themselves or each other."""


class ContainerError(CodectoolError):
    """A `.hcd` file cannot be read or written."""


class NotHcdError(ContainerError):
    """The data do not begin like a `.hcd` file."""


class UnsupportedError(ContainerError):
    """The file is of a later version or needs a feature that this version lacks."""


class DamagedError(ContainerError):
    """A check failed, or fields of the file contradict each other."""


class TruncatedError(ContainerError):
    """The data end before the file does."""


class CheckpointError(CodectoolError):
    """The weights cannot be used."""


class UnsafeCheckpointError(CheckpointError):
    """The checkpoint is a pickle that names code which is never run here."""


class WeightsMissingError(CheckpointError):
    """No weights were given and none are known for this request."""


class FingerprintError(CheckpointError):
    """The tokens were made with other weights than the ones at hand."""


class ConfigError(CodectoolError, ValueError):
    """Hyper-parameters are missing, of the wrong type or describe no model."""


class TrainingError(CodectoolError):
    """A training run cannot go on."""
