"""Command line: one file per command, imported when the command is called."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from keyword import iskeyword
from typing import Any, ClassVar, TextIO

import click
from typing_extensions import override

from codectool._version import __version__
from codectool.cli.console import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    debug,
    message,
    repair_standard_streams,
    report_error,
    warn,
)
from codectool.cli.options import debug_option
from codectool.cli.signals import exit_when_terminated
from codectool.errors import CodectoolError, CodectoolWarning, UsageError, memory_advice

COMMANDS = {
    "encode": "Encode audio to .hcd: a file, a folder or a pipe.",
    "decode": "Decode .hcd to audio: a file, a folder or a pipe.",
    "reconstruct": "Encode and decode in one go.",
    "info": "Show metadata of .hcd files or codecs.",
    "verify": "Check .hcd files for damage.",
    "models": "List, download, add and check model weights.",
    "thin": "Keep fewer codebooks of .hcd files.",
    "convert": "Convert checkpoints: other layouts, other types of values.",
    "tokens": "Tokens of corpora for language models.",
    "filelist": "List audio files for training.",
    "export": "Export a codec to ONNX or torch.export.",
    "train": "Train a codec.",
    "evaluate": "Measure the quality of codecs on a set of clips.",
    "compare": "Compare two recordings.",
    "plot": "Plot learning curves of training runs.",
    "doctor": "Check this installation and this machine.",
    "completion": "Print a completion script for a shell.",
    "man": "Write manual pages.",
}


# options and their values in earlier versions
RENAMED = {"quantizers": "codebooks", "framing": "padding"}
RENAMED |= {"whole": "lossless", "upstream": "reference"}


class Commands(click.Group):
    """A group that lists its commands without importing them.

    Attributes:
        summaries: a line about each command.
        module: prefix of the modules of the commands.
    """

    summaries: ClassVar[dict[str, str]] = COMMANDS
    module: ClassVar[str] = "codectool.cli."

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.summaries)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.summaries:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command = getattr(import_module(self.module + cmd_name), name)
        assert isinstance(command, click.Command)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
        "token_normalize_func": lambda token: RENAMED.get(token, token),
    },
)
@debug_option
@click.version_option(__version__, "-V", "--version", prog_name="codectool")
def codectool() -> None:
    """Neural speech codecs at about 1 kbps: HAC, BigCodec and SuperCodec.

    \b
    Examples:
      codectool encode in.wav out.hcd
      codectool info out.hcd
      codectool decode out.hcd out.wav

    The file name `-` means stdin or stdout. Data is written to stdout, messages to stderr.

    \b
    Exit codes:
      0    success
      1    some files of a folder failed, or the reader of stdout closed it early
      2    bad usage or bad input
      3    decoded, with damage concealed
      70   internal error
      129  hung up (the terminal was closed)
      130  interrupted (Ctrl-C)
      143  terminated
    """


def _with_hint(error: click.ClickException) -> str:
    """Return the message of a usage error, with a pointer to `--help`."""
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context else ""
    return error.format_message().replace(". (Did", " (did").rstrip(".") + hint


def prepare_torch() -> None:
    """Set what PyTorch and OpenMP read from the environment when they are loaded.

    Waiting threads sleep early. By default they spin, which keeps the core from the thread that
    they wait for: with one of two cores used by another program, two threads were a hundred times
    slower than one.

    oneDNN keeps the code that it generates for each length of a signal, but by default for 1024 of
    them only; in a folder of clips, generating it again takes a tenth of the time.

    Extensions for devices that codectool cannot use are neither searched for among all installed
    packages, which takes 20 ms and more, nor loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # microseconds
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


def run() -> None:
    """Run the command line as a process, which ends as soon as its exit code is known.

    Otherwise all modules would be torn down: with PyTorch, that takes 0.3 s, or 0.7 s if its files
    are not in the file cache. Threads end and exit handlers run as usual.
    """
    code: Any = None

    def end_process() -> None:
        if isinstance(code, int):  # otherwise an error is on its way
            flush_standard_streams()
            os._exit(code)

    atexit.register(end_process)  # the first one that is registered is the last one to run
    try:
        main()
    except SystemExit as ended:
        code = ended.code
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its exit code."""
    prepare_torch()
    debug.set(False)
    repair_standard_streams()
    with exit_when_terminated(), printing_warnings():
        code = _run(arguments)
    flush_standard_streams()
    sys.exit(code)


@contextmanager
def printing_warnings() -> Iterator[None]:
    """Print warnings of the library like those of the commands."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CodectoolWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, CodectoolWarning):
                warn(str(message))
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def flush_standard_streams() -> None:
    """Flush stdout and stderr; discard what cannot be written, for Python would try it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError), open(os.devnull, "w") as null:
                os.dup2(null.fileno(), stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command line; print errors, and return the exit code."""
    try:
        code = codectool.main(arguments, prog_name="codectool", standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        message(error.format_message())
        code = error.exit_code
    except click.ClickException as error:
        report_error(UsageError(_with_hint(error)))
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except (CodectoolError, OSError) as error:
        report_error(error)
        code = EXIT_BAD_INPUT
    except ModuleNotFoundError as error:
        if is_bug := error.name != "torch":
            report_error(error, unexpected=True)
        else:
            report_error(UsageError("this needs PyTorch; run `pip install torch`"))
        code = EXIT_BUG if is_bug else EXIT_BAD_INPUT
    except Exception as error:
        is_bug = memory_advice(error) is None
        report_error(error, unexpected=is_bug)
        code = EXIT_BUG if is_bug else EXIT_BAD_INPUT
    return code if isinstance(code, int) else 0
