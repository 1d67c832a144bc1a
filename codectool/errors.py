"""All errors that codectool raises deliberately.

CodectoolError
├── UsageError
├── NotEnoughMemoryError (also a MemoryError)
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
│   ├── DownloadError
│   └── FingerprintError
├── ConfigError
└── TrainingError

CodectoolWarning (a UserWarning) is the category of all warnings but those about renamed names.

A message is one line: the file or option, the reason, and what to do next, with commands and
options in backticks. The command line prints it and exits with code 2.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

# What libraries say that have no exception for it: PyTorch, CUDA, C++, the dynamic linker, threads.
OUT_OF_MEMORY = re.compile(
    r"(out of|not enough|can't allocate|cannot allocate|failed to allocate) memory"
    r"|bad_alloc|bad allocation|_ALLOC_FAILED|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
GPU = re.compile(r"CUDA|CUBLAS|CUDNN|CUFFT|MPS|GPU")
MEMORY_ADVICE = "not enough memory for this input; close other programs, or use smaller files"
GPU_MEMORY_ADVICE = "not enough GPU memory for this input; use `--device cpu` or smaller files"


class CodectoolError(Exception):
    """Base class of the errors of codectool."""


class CodectoolWarning(UserWarning):
    """An input is used as it is, but may not be what was meant."""


class UsageError(CodectoolError):
    """The request is invalid, for example because options contradict each other."""


class NotEnoughMemoryError(CodectoolError, MemoryError):
    """The memory of this machine or GPU does not suffice."""


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
    """No weights were given, or the ones that are needed are not on this machine.

    Attributes:
        model: name of the model in the registry that would do; None if there is none.
    """

    def __init__(self, message: str, model: str | None = None) -> None:
        super().__init__(message)
        self.model = model


class DownloadError(CheckpointError):
    """Weights cannot be downloaded, or are not the expected ones."""


class FingerprintError(CheckpointError):
    """The tokens were made with another codec or different weights."""


class ConfigError(CodectoolError, ValueError):  # msgspec adds the path to a ValueError
    """A config has missing, unknown or invalid values."""


class TrainingError(CodectoolError):
    """A training run cannot continue."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name a file in errors about its content, in errors of the system and if memory is short."""
    try:
        yield
    except (AudioError, TokensError, ContainerError, FingerprintError) as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        if advice := memory_advice(error):
            raise NotEnoughMemoryError(f"{name}: {advice}") from error
        if isinstance(error, OSError) and error.filename is None:
            error.filename = name
        raise


def memory_advice(error: BaseException) -> str | None:
    """Return what to do if an exception of any library means that memory is short, else None."""
    if isinstance(error, CodectoolError):
        return None
    text = str(error)
    if not (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError | ImportError) and OUT_OF_MEMORY.search(text))
    ):
        return None
    return GPU_MEMORY_ADVICE if GPU.search(text) else MEMORY_ADVICE
