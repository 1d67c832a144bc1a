"""Options that select a codec, and loading it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codectool.cli.console import warn, working
from codectool.cli.options import FILE, collect_options, complete_device, complete_weights
from codectool.codecs.registry import FAMILIES
from codectool.errors import CodectoolError, UsageError, WeightsMissingError

if TYPE_CHECKING:
    from codectool.codec import Codec
    from codectool.container import Header


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """Codec, weights and device."""

    model: str | None
    checkpoint: Path | None
    config: Path | None
    device: str
    precision: str
    runtime: str | None
    yes: bool
    decoder: Path | None = None

    def load(self) -> Codec:
        """Load the codec, and record its weights in the model registry.

        Weights that are missing are downloaded with ``--yes`` or if the user agrees.
        """
        from codectool.checkpoints import registry
        from codectool.loading import load

        options = {key: value for key, value in vars(self).items() if key != "yes"}

        def load_with_spinner() -> Codec:
            with working("loading the codec"), collection_paused():
                return load(**options)

        try:
            codec = load_with_spinner()
        except WeightsMissingError as error:
            if not self._pull(error):
                raise
            codec = load_with_spinner()
        try:
            registry.remember(
                codec.fingerprint,
                codec.layout.family,
                codec.checkpoint,
                self.config,
                codec.token_fingerprint,
                codec.same_tokens_as,
            )
        except (OSError, CodectoolError) as error:
            warn(f"cannot record this checkpoint: {error}")
        if "OMP_NUM_THREADS" not in os.environ:
            codec.runner.limit_threads()
        return codec

    def load_for(self, header: Header, name: str) -> Codec:
        """Load the given checkpoint, or else the weights that a file was made with.

        Raises:
            UsageError: the options contradict the file or each other.
            WeightsMissingError: the weights are not on this machine.
        """
        from codectool.checkpoints import registry

        family, fingerprint = header.layout.family, header.fingerprint
        if self.model not in (None, family):
            raise UsageError(f"{name}: was encoded with {family}, not {self.model}")
        if self.checkpoint is not None:
            return replace(self, model=family).load()
        if self.decoder is not None:  # the file stands for the encoder
            return replace(self, model=family, checkpoint=self.decoder, decoder=None).load()
        if self.config is not None:
            raise UsageError("`--config` needs `--checkpoint`")
        entry = registry.find_decoder(fingerprint)
        if entry is None:
            if (codec := self._search(family, fingerprint)) is not None:
                return codec
            default = registry.default(family)
            pull = ""
            if default is not None and default.find() is None and default.remote:
                pull = f", or get those of {default.name} with `codectool models pull {family}`"
            raise WeightsMissingError(
                f"{name}: holds {family} tokens {fingerprint}; no weights on this machine are "
                f"known to decode them; name some with `--checkpoint PATH`{pull}"
            )
        if entry.find() is None:
            error = WeightsMissingError(
                f"{name}: made with the weights {entry.name}, which are not on this machine: "
                f"{entry.how_to_get()}",
                entry.name if entry.remote else None,
            )
            if not self._pull(error):
                raise error
            entry = registry.find_decoder(fingerprint)
            assert entry is not None
        config = Path(entry.config) if entry.config else None
        return replace(self, model=None, checkpoint=entry.locate(), config=config).load()

    def _search(self, family: str, fingerprint: str) -> Codec | None:
        """Load weights whose token fingerprint was not recorded yet, until some decode a file."""
        from codectool.checkpoints import registry

        for entry in registry.entries().values():
            path = entry.find() if entry.family == family and not entry.token_fingerprint else None
            if path is None:
                continue
            config = Path(entry.config) if entry.config else None
            try:
                codec = replace(self, model=None, checkpoint=path, config=config).load()
            except CodectoolError as error:
                warn(f"{entry.name}: {error}")
                continue
            if fingerprint in codec.same_tokens_as:
                return codec
        return None

    def _pull(self, error: WeightsMissingError) -> bool:
        """Download missing weights if that is possible and the user agrees; return whether."""
        if error.model is None:
            return False
        from codectool.cli.models import confirm, pull_with_progress

        if not self.yes and not confirm(f"{error}\nDownload them now?"):
            return False
        pull_with_progress(error.model)
        return True


@contextmanager
def collection_paused() -> Iterator[None]:
    """Load modules and weights without collecting garbage, the first time in a process.

    They all stay in use, and searching them for garbage takes 0.1 s with PyTorch. So later
    collections leave them out, too.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(CodecOptions):
    """Codec, weights, device and how to encode."""

    codebooks: int | None
    padding: str


_CODEC_OPTIONS = (
    click.option("--model", type=click.Choice(list(FAMILIES)), help="Codec family."),
    click.option(
        "--checkpoint",
        type=FILE,
        metavar="PATH|NAME",
        shell_complete=complete_weights,
        help="Weights: a file or folder from codectool or from the authors of the codec, or a name "
        "that `codectool models list` prints.",
    ),
    click.option(
        "--config",
        type=FILE,
        metavar="JSON",
        help="Model config, if the checkpoint does not contain it.",
    ),
    click.option(
        "--device",
        default="auto",
        metavar="DEVICE",
        shell_complete=complete_device,
        help="cpu, cuda, cuda:N, mps or auto (the fastest available).",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        default="fp32",
        help="Precision of matrix products. Only fp32 gives the tokens of the reference "
        "implementation. bf16 decodes BigCodec and SuperCodec faster on CPUs with AVX512-BF16 or "
        "AMX; auto uses it for that alone. fp16 needs a GPU.",
    ),
    click.option(
        "--runtime",
        type=click.Choice(["torch", "onnx"]),
        envvar="CODECTOOL_RUNTIME",
        show_envvar=True,
        show_default="torch if it is installed",
        help="Run the model in PyTorch, or on the CPU in ONNX Runtime, which needs no PyTorch and "
        "takes the bundled weights or a folder that `codectool export` wrote.",
    ),
    click.option("--yes", is_flag=True, help="Download missing weights without asking."),
)
decoder_option = click.option(
    "--decoder",
    type=FILE,
    metavar="PATH|NAME",
    shell_complete=complete_weights,
    show_default="the checkpoint's own",
    help="Weights with the same encoder and another decoder, which is used.",
)
codec_options = collect_options("selected", CodecOptions, *_CODEC_OPTIONS)
encoder_options = collect_options(
    "selected",
    EncoderOptions,
    *_CODEC_OPTIONS,
    click.option(
        "--codebooks",
        type=click.IntRange(1),
        metavar="N",
        show_default="all",
        help="Number of codebooks to use.",
    ),
    click.option(
        "--padding",
        type=click.Choice(["lossless", "reference"]),
        default="lossless",
        help="Padding to whole frames: lossless keeps every sample; reference pads or cuts like "
        "the reference implementation.",
    ),
)
