"""The command line: thin, one file per command; commands are imported when they are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from codectool._version import __version__
from codectool.cli.console import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    Settings,
    report_error,
)
from codectool.cli.options import debug_option
from codectool.errors import CodectoolError, UsageError

SPINS = "1000"  # a few microseconds

COMMANDS = {
    "encode": "audio to .hcd, files or folders",
    "decode": ".hcd to audio, files or folders",
    "reconstruct": "encode and decode, to hear what a codec makes of audio",
    "info": "what .hcd files and codecs say about themselves",
    "verify": "check every bit of .hcd files",
    "filelist": "list of audio files for training",
    "train": "teach a codec",
    "evaluate": "how good codecs sound, measured and side by side",
    "compare": "one recording beside another, measured and as a picture",
    "plot": "learning curves of training runs as a picture",
}


class Commands(click.Group):
    """Knows the names of the commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is called."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"codectool.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@debug_option
@click.version_option(__version__, "-V", "--version", prog_name="codectool")
def codectool() -> None:
    """Neural speech codecs at about 1 kbps: SuperCodec, BigCodec and HAC.

    \b
    Examples:
      codectool encode in.wav out.hcd --model bigcodec --checkpoint bigcodec.pt
      codectool info out.hcd
      codectool decode out.hcd out.wav

    `-` as a file name is standard input or output. Exit codes: 0 done, 1 some files of a folder
    failed or whoever read the output left early, 2 bad usage or bad input, 3 decoded with damage
    concealed, 70 a bug, 130 interrupted, 143 terminated.
    """


def _with_hint(error: click.ClickException) -> str:
    """What is wrong with the command line, and where to look."""
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context else ""
    return error.format_message().rstrip(".") + hint


def wait_without_spinning() -> None:
    """Let threads that wait for each other sleep soon.

    PyTorch's OpenMP reads this when it is loaded. Left to itself it lets a waiting thread spin for
    long, which on a busy machine takes the core from the thread that is waited for: with one core
    taken by another program, two threads were a hundred times slower than one.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    wait_without_spinning()
    settings = Settings()
    try:
        code = codectool.main(arguments, prog_name="codectool", standalone_mode=False, obj=settings)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        report_error(UsageError(_with_hint(error)), settings)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except (CodectoolError, OSError, MemoryError) as error:
        report_error(error, settings)
        code = EXIT_BAD_INPUT
    except Exception as error:
        report_error(error, settings, unexpected=True)
        code = EXIT_BUG
    sys.exit(code if isinstance(code, int) else 0)
