"""`codectool completion`: scripts for completion in shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from codectool.cli.console import print_data
from codectool.cli.options import debug_option


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
def completion(shell: str) -> None:
    """Print a script that completes commands, options, names and files in a shell.

    It takes effect in the next shell that you start. In zsh, compinit must run before this line.

    \b
    Examples:
      echo 'eval "$(codectool completion bash)"' >> ~/.bashrc
      echo 'eval "$(codectool completion zsh)"' >> ~/.zshrc
      codectool completion fish > ~/.config/fish/completions/codectool.fish
    """
    root = click.get_current_context().find_root()
    template = get_completion_class(shell)
    assert template is not None
    print_data(template(root.command, {}, "codectool", "_CODECTOOL_COMPLETE").source(), end="")
