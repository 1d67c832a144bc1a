"""`load`: load a codec by name, checkpoint and device."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectool.checkpoints import registry
from codectool.codec import Codec
from codectool.codecs.registry import DEFAULT_FAMILY, get_family
from codectool.deprecation import renamed_keywords
from codectool.errors import CheckpointError, FingerprintError, UsageError, WeightsMissingError
from codectool.onnx.load import LoadedExport, is_export, load_exported
from codectool.streaming import Padding, warn_caller

if TYPE_CHECKING:
    from codectool.checkpoints.load import LoadedModel
    from codectool.checkpoints.registry import ModelEntry

RUNTIMES = {"torch": "torch", "onnx": "onnxruntime"}  # packages by runtime


@renamed_keywords(quantizers="codebooks", framing="padding")
def load(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    device: Any = "auto",
    precision: str = "fp32",
    padding: Padding = "lossless",
    codebooks: int | None = None,
    runtime: str | None = None,
    decoder: str | Path | None = None,
) -> Codec:
    """Load a codec.

    Args:
        model: codec family, for example ``"hac"``; None for the family of the checkpoint.
        checkpoint: file or folder with the weights, in the format of the reference implementation
            or of codectool, or the name of a model (`codectool.models.entries`); None for the
            family's default model. Nothing is ever downloaded: see `codectool.models.pull`.
        config: config of the model, or a JSON file with it; needed only if the checkpoint (or the
            decoder, without a checkpoint) does not contain it.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``, or ``"auto"`` (the fastest); or a
            `torch.device`.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` for the matrix products, or ``"auto"``,
            which decodes BigCodec and SuperCodec in bf16 on CPUs with instructions for it, with an
            error 40 dB below the signal, and is fp32 for all else. Only fp32 produces the tokens of
            the reference implementation. fp16 needs a GPU. HAC at 1.35 kbps is faster in fp32 on a
            CPU and ignores it there.
        padding: how signals are extended to whole frames. ``"lossless"`` keeps every sample and
            decodes to the exact length; ``"reference"`` does what the reference implementation
            does.
        codebooks: encode with only the first N codebooks; None for all.
        runtime: ``"torch"``, or ``"onnx"`` for ONNX Runtime on the CPU, which takes models that
            `codectool export` wrote and the bundled weights, and needs no PyTorch. None for
            ``"onnx"`` if the checkpoint is an exported model or PyTorch is not installed.
        decoder: another checkpoint with the same encoder and quantizer, whose decoder is used. It
            is what the codec then runs, because its encoder makes the same tokens.

    Raises:
        WeightsMissingError: the weights are not on this machine; ``model`` of the exception is
            what `codectool.models.pull` takes, if they can be downloaded.
        CheckpointError: the checkpoint cannot be used.
        FingerprintError: the decoder decodes other tokens than the checkpoint makes.
        ConfigError: the config of the model is missing or wrong.
        UsageError: there is no such model, device, precision, padding, runtime or number of
            codebooks.
    """
    if decoder is not None:
        codec = load(
            model,
            decoder,
            config=config if checkpoint is None else None,
            device=device,
            precision=precision,
            padding=padding,
            codebooks=codebooks,
            runtime=runtime,
        )
        _check_tokens(codec, model, checkpoint, config)
        return codec
    if checkpoint is None and config is not None:
        raise UsageError("`--config` needs `--checkpoint`: default weights contain theirs")
    entry = _find_entry(model, checkpoint)
    path = Path(checkpoint or "") if entry is None else entry.locate()
    expected = entry.fingerprint if entry is not None and config is None else None
    config = entry.config if entry is not None and config is None else config
    if choose_runtime(runtime, path) == "onnx":
        _check_onnx_options(config, str(device), precision)
        export = load_exported(path, model)
        _check_fingerprint(expected, export.fingerprint, export.path)
        return Codec(
            export.runner,
            export.fingerprint,
            export.path,
            padding,
            codebooks,
            token_fingerprint=export.token_fingerprint,
            same_tokens_as=_same_tokens(export),
        )

    from codectool.checkpoints.load import load_model
    from codectool.codecs.isolation import isolated
    from codectool.torch_runner import (
        TorchRunner,
        check_precision,
        find_device,
        is_slow_precision,
    )

    where = find_device(device)
    check_precision(precision, where)
    if is_slow_precision(precision, where):
        warn_caller(
            "precision bf16: this CPU has no instructions for it, so it is not faster than fp32; "
            "`--precision auto` uses bf16 only where it is"
        )
    if isinstance(config, str):
        config = Path(config)
    with isolated(where.type, inference=False):
        loaded = load_model(path, model, config)
        _check_fingerprint(expected, loaded.fingerprint, loaded.path)
        runner = TorchRunner(loaded.model, where, precision)
        return Codec(
            runner,
            loaded.fingerprint,
            loaded.path,
            padding,
            codebooks,
            loaded.converted_from,
            loaded.token_fingerprint,
            _same_tokens(loaded),
        )


def _find_entry(model: str | None, checkpoint: str | Path | None) -> ModelEntry | None:
    """Return the model of the registry that is meant, or None if the checkpoint is a path.

    Raises:
        WeightsMissingError: there is no checkpoint, and no default weights are on this machine.
    """
    family = get_family(model or DEFAULT_FAMILY)
    if checkpoint is not None:
        return None if Path(checkpoint).exists() else registry.named(str(checkpoint))
    entry = registry.default(family.name)
    if entry is None:
        hint = f"{family.weights_hint}; " if family.weights_hint else ""
        raise WeightsMissingError(
            f"no weights for {family.name}; pass `--checkpoint PATH` ({hint}see "
            "docs/guides/models.md)"
        )
    if entry.find() is None:
        raise WeightsMissingError(
            f"no weights for {family.name} on this machine; {entry.how_to_get()}, or pass "
            "`--checkpoint PATH`",
            entry.name if entry.remote else None,
        )
    return entry


def _check_tokens(
    codec: Codec,
    model: str | None,
    checkpoint: str | Path | None,
    config: str | Path | Mapping[str, Any] | None,
) -> None:
    """Raise a `FingerprintError` if a codec does not decode the tokens of a checkpoint."""
    entry = _find_entry(model, checkpoint)
    if entry is not None and entry.token_fingerprint is not None:
        name, tokens, names = entry.name, entry.token_fingerprint, entry.token_names
    else:
        config = config if checkpoint is not None else None
        original = load(model, checkpoint, config=config, device="cpu")
        name, tokens = str(original.checkpoint), original.token_fingerprint
        names = original.same_tokens_as
    if not names & codec.same_tokens_as:
        raise FingerprintError(
            f"{codec.checkpoint}: decodes tokens {codec.token_fingerprint}, but {name} makes "
            f"{tokens}; name a decoder that was trained with the encoder of {name}, or use "
            "`--checkpoint` alone"
        )


def _same_tokens(loaded: LoadedModel | LoadedExport) -> set[str]:
    """Return what a checkpoint lists, and all known weights with the same token fingerprint."""
    return {*loaded.same_tokens_as, *registry.weights_with_tokens(loaded.token_fingerprint)}


def _check_fingerprint(expected: str | None, found: str, path: Path) -> None:
    """Raise if the weights at the place of a model are not those of the registry."""
    if expected not in (None, found):
        raise CheckpointError(
            f"{path}: has the fingerprint {found}, not {expected} as in the model registry; "
            "restore the file, or add it under another name with `codectool models add`"
        )


def choose_runtime(runtime: str | None, checkpoint: Path) -> str:
    """Return which runtime runs a checkpoint; see `load`.

    Raises:
        UsageError: it is unknown, cannot run the checkpoint, or is not installed.
    """
    if runtime not in (None, *RUNTIMES):
        raise UsageError(f"no runtime is called `{runtime}`; use {' or '.join(RUNTIMES)}")
    exported = is_export(checkpoint)
    if runtime == "torch" and exported:
        raise UsageError(
            f"{checkpoint}: is an exported model, which ONNX Runtime runs; leave out `--runtime "
            "torch`, or pass the checkpoint that it was exported from"
        )
    installed = {name: find_spec(package) is not None for name, package in RUNTIMES.items()}
    chosen = runtime or ("torch" if installed["torch"] and not exported else "onnx")
    if installed[chosen]:
        return chosen
    if chosen == "torch":
        raise UsageError("PyTorch is not installed; run `pip install torch`")
    if runtime is None and not exported:
        raise UsageError(
            "neither PyTorch nor ONNX Runtime is installed; run `pip install torch`, or "
            "`pip install onnxruntime`"
        )
    raise UsageError("ONNX Runtime is not installed; run `pip install 'codectool[onnx]'`")


def _check_onnx_options(config: object, device: str, precision: str) -> None:
    if config is not None:
        raise UsageError("`--config` needs PyTorch: an exported model contains its config")
    if device not in ("auto", "cpu"):
        raise UsageError(f"device {device}: ONNX Runtime runs on the CPU; use `--runtime torch`")
    if precision not in ("fp32", "auto"):
        raise UsageError(
            f"precision {precision}: ONNX Runtime computes in fp32; use `--runtime torch`"
        )
