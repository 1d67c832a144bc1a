"""Loading of checkpoints in every layout, and errors for those that do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from codectool.checkpoints.fingerprint import fingerprint
from codectool.checkpoints.load import load_model, read_weights
from codectool.checkpoints.native import read_native, write_model, write_native
from codectool.checkpoints.published import canonical_name, model_name, read_published
from codectool.checkpoints.stored import METADATA_KEY
from codectool.errors import CheckpointError, ConfigError
from codectool.nn.weight_norm import to_new_name
from tests.conftest import GOLDEN
from tests.hac_models import load_preset, untrained

BIGCODEC = GOLDEN / "bigcodec_micro.pt"
SUPERCODEC = GOLDEN / "supercodec_micro"


def changed(path: Path, target: Path, change: Any) -> Path:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


@pytest.mark.parametrize("path", [BIGCODEC, SUPERCODEC / "g_00000001"])
def test_model_name_and_canonical_name_are_inverse(path: Path) -> None:
    family, state, _ = read_published(path)
    names = [model_name(family, name) for name in state]
    assert [canonical_name(family, name) for name in names] == list(state)
    assert len(set(names)) == len(names)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    def change(content: dict[str, dict[str, torch.Tensor]]) -> None:
        del content["CodecEnc"]["block.0.weight_g"]
        content["generator"]["model.99.bias"] = torch.zeros(1)
        content["generator"]["model.0.bias"] = torch.zeros(3)

    path = changed(BIGCODEC, tmp_path / "bad.pt", change)
    with pytest.raises(CheckpointError) as caught:
        load_model(path, "bigcodec")
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "1 missing: CodecEnc.block.0.weight_g" in text
    assert "1 unexpected: generator.model.99.bias" in text
    assert "generator.model.0.bias (3,) instead of (32,)" in text
    assert "\n" not in text


def test_long_lists_of_tensors_are_shortened(tmp_path: Path) -> None:
    def change(content: dict[str, dict[str, torch.Tensor]]) -> None:
        for name in list(content["generator"])[5:40]:
            del content["generator"][name]

    path = changed(SUPERCODEC / "g_00000001", tmp_path / "g_00000001", change)
    shutil.copy(SUPERCODEC / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="35 missing: .* and 31 more"):
        load_model(path)


def test_checkpoint_of_another_family_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match="is a supercodec checkpoint; use `--model supercodec`"
    ):
        load_model(SUPERCODEC, "bigcodec")


def test_folder_loads_its_latest_step(tmp_path: Path) -> None:
    shutil.copytree(SUPERCODEC, tmp_path / "run")
    shutil.copy(tmp_path / "run" / "g_00000001", tmp_path / "run" / "g_00000200")
    assert load_model(tmp_path / "run").path.name == "g_00000200"


def test_folder_loads_the_released_file(tmp_path: Path) -> None:
    shutil.copy(BIGCODEC, tmp_path / "bigcodec.pt")
    assert load_model(tmp_path).model.family == "bigcodec"


def test_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_model(tmp_path / "nothing")


def test_supercodec_needs_its_config(tmp_path: Path) -> None:
    path = Path(shutil.copy(SUPERCODEC / "g_00000001", tmp_path))
    with pytest.raises(ConfigError, match=r"config\.json beside the checkpoint"):
        load_model(path)
    config = SUPERCODEC / "config.json"
    assert load_model(path, config=config).fingerprint == load_model(SUPERCODEC).fingerprint


def test_training_keys_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    run = Path(shutil.copytree(SUPERCODEC, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "batch_size": 99}))
    assert load_model(run).fingerprint == load_model(SUPERCODEC).fingerprint
    (run / "config.json").write_text(json.dumps({**config, "sampling_rate": 24000}))
    assert load_model(run).fingerprint != load_model(SUPERCODEC).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": None}, "`strides` must be a list, not None"),
        ({"strides": [4, 5, 2]}, "must have the same length"),
        ({"strides": [4, "5"]}, r"`strides\[1\]` must be an integer, not '5'"),
        ({"codebook_size": 0}, "`codebook_size` must be an integer >= 1, not 0"),
        ({"sampling_rate": 1 << 60}, "`sampling_rate` must be an integer <= 10000000"),
        ({"rq_num_quantizers": 1 << 20}, "`rq_num_quantizers` must be an integer <= 64"),
        ({"channel_mults": [1 << 24, 1 << 24]}, "describes a model with more than twice as many"),
        ({"codebook_dim": 17}, "of the wrong shape"),
    ],
)
def test_invalid_supercodec_config_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    config = json.loads((SUPERCODEC / "config.json").read_text())
    with pytest.raises((ConfigError, CheckpointError), match=message):
        load_model(SUPERCODEC, config={**config, **change})


def test_missing_and_unknown_keys_of_a_bigcodec_config_are_named() -> None:
    config = json.loads((GOLDEN / "bigcodec_micro.json").read_text())
    del config["codec_encoder"]["ngf"]
    with pytest.raises(ConfigError, match=r"key `codec_encoder\.ngf` is missing"):
        load_model(BIGCODEC, config=config)
    config["codec_encoder"] |= {"ngf": 2, "typo": 1}
    with pytest.raises(ConfigError, match=r"unknown key `codec_encoder\.typo`"):
        load_model(BIGCODEC, config=config)


@pytest.mark.parametrize("text", ["", "[1]", "{", "nan"])
def test_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: "):
        load_model(BIGCODEC, config=path)


def test_uninitialised_codebook_is_refused(tmp_path: Path) -> None:
    def change(content: dict[str, dict[str, torch.Tensor]]) -> None:
        content["generator"]["rq.layers.1._codebook.initted"].zero_()

    path = changed(SUPERCODEC / "g_00000001", tmp_path / "g_00000001", change)
    shutil.copy(SUPERCODEC / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="codebook 1 was never initialised"):
        load_model(path)


def test_error_for_a_discriminator_names_the_file_of_the_model(tmp_path: Path) -> None:
    torch.save({"discriminator": {}, "optim_g": {}, "optim_d": {}}, tmp_path / "do_00000001")
    with pytest.raises(CheckpointError, match="`g_00000001` beside it"):
        load_model(tmp_path / "do_00000001")


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"generator": [1]}, {"generator": {"a": 1}}])
def test_unknown_layout_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: "):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["file", "folder"])
def test_native_checkpoint_keeps_tensors_and_fingerprint(
    tmp_path: Path, dtype: torch.dtype, layout: str
) -> None:
    codec = untrained(load_preset("hac-tiny"))
    if layout == "file":
        path = tmp_path / "hac.safetensors"
        write_native(path, "hac", codec.hyper_parameters, codec.state_dict(), dtype)
    else:
        path = tmp_path
        tensors = {name: tensor.to(dtype) for name, tensor in codec.state_dict().items()}
        save_file(tensors, path / "model.safetensors")
        config = {"family": "hac", "model": codec.hyper_parameters, "training": {"lr": 1}}
        (path / "config.json").write_text(json.dumps(config))
    loaded = load_model(path)
    assert loaded.model.family == "hac"
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, codec.state_dict()[name].to(dtype).float())
    stored = {name: tensor.to(dtype) for name, tensor in codec.state_dict().items()}
    assert loaded.fingerprint == fingerprint("hac", codec.hyper_parameters, stored)


def test_native_copy_keeps_the_fingerprint(tmp_path: Path) -> None:
    for path in (BIGCODEC, SUPERCODEC):
        original = load_model(path)
        source = path if path.is_file() else path / "g_00000001"
        family, state, _ = read_published(source)
        target = tmp_path / f"{family}.safetensors"
        write_native(target, family, original.model.hyper_parameters, state)
        assert load_model(target).fingerprint == original.fingerprint


@pytest.mark.parametrize("path", [BIGCODEC, SUPERCODEC])
def test_write_model_refuses_folded_weight_norm(tmp_path: Path, path: Path) -> None:
    with pytest.raises(CheckpointError, match="folded for inference cannot be stored"):
        write_model(tmp_path / "x.safetensors", load_model(path).model)
    assert not list(tmp_path.iterdir())


def test_config_option_accepts_a_training_config(tmp_path: Path) -> None:
    config = json.loads((SUPERCODEC / "config.json").read_text())
    whole = {"family": "supercodec", "model": config, "training": {}}
    assert load_model(SUPERCODEC, config=whole).fingerprint == load_model(SUPERCODEC).fingerprint


def test_fingerprint_covers_names_shapes_dtypes_values_and_hyper_parameters() -> None:
    base = {"a": torch.arange(4.0), "b": torch.ones(2)}
    variants = [
        ("hac", {"x": 1}, base),
        ("bigcodec", {"x": 1}, base),
        ("hac", {"x": 2}, base),
        ("hac", {"x": 1}, {"c": base["a"], "b": base["b"]}),
        ("hac", {"x": 1}, {**base, "a": base["a"].reshape(2, 2)}),
        ("hac", {"x": 1}, {**base, "a": base["a"].bfloat16()}),
        ("hac", {"x": 1}, {**base, "a": torch.tensor([0.0, 1.0, 2.0, 3.0000002])}),
    ]
    names = [fingerprint(*variant) for variant in variants]
    assert len(set(names)) == len(names)
    swapped = dict(reversed(base.items()))
    assert fingerprint("hac", {"x": 1}, swapped) == names[0]
    strided = {**base, "a": torch.arange(8.0).reshape(4, 2)[:, 0] / 2}
    assert fingerprint("hac", {"x": 1}, strided) == names[0]


def test_damaged_native_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for content in (b"\x08", b"\xff" * 8 + b"{}", b"not a checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.safetensors: not a safetensors file"):
            load_model(path)


def test_native_file_without_hyper_parameters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="no hyper-parameters"):
        read_native(path)
    save_file({"a": torch.zeros(1)}, path, {METADATA_KEY: '{"family": 1}'})
    with pytest.raises(ConfigError, match="must hold `family`"):
        read_native(path)
    save_file({"a": torch.zeros(1, dtype=torch.int64)}, path, {METADATA_KEY: "{}"})
    with pytest.raises(CheckpointError, match="not float"):
        read_native(path)


def test_tensor_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    def change(content: dict[str, dict[str, torch.Tensor]]) -> None:
        content["generator"]["model.0.bias"] = torch.zeros(1).expand(1 << 40)

    path = changed(BIGCODEC, tmp_path / "bad.pt", change)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(CheckpointError, match=r"model\.0\.bias claims 1099511627776 values"):
        load_model(path)


@pytest.mark.parametrize("family", ["bigcodec", "supercodec", "hac"])
def test_config_of_a_huge_model_is_refused(checkpoints: dict[str, Path], family: str) -> None:
    path = checkpoints[family]
    config = dict(load_model(path).model.hyper_parameters)
    if family == "bigcodec":
        config["codec_encoder"] |= {"ngf": 1 << 20, "up_ratios": [2] * 3 + [5] * 2}
    elif family == "supercodec":
        config["channel_mults"] = [1 << 20, 1 << 20]
    else:
        config["encoder_channels"] = [1 << 16] * 4
    with pytest.raises(CheckpointError, match="describes a model with more than twice as many"):
        load_model(path, config=config)


def test_loading_does_not_import_the_compiler(checkpoints: dict[str, Path]) -> None:
    """PyTorch's compiler takes a second to import, and arithmetic on meta tensors imports it."""
    program = (
        "import sys, codectool\n"
        "codectool.load(checkpoint=sys.argv[1], device='cpu')\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    for path in checkpoints.values():
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def test_safetensors_file_that_starts_like_a_pickle_is_read(tmp_path: Path) -> None:
    """A file starts with the length of its header; pickles start with 0x80."""
    codec = untrained(load_preset("hac-tiny"))
    names = {METADATA_KEY: json.dumps({"family": "hac", "model": codec.hyper_parameters})}
    path = tmp_path / "x.safetensors"
    for padding in range(0, 256, 8):
        save_file(codec.state_dict(), path, {**names, "padding": " " * padding})
        if path.read_bytes()[0] == 0x80:
            assert load_model(path).model.family == "hac"
            return
    raise AssertionError("no padding makes a header of that length")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_nan_or_infinity_are_refused(tmp_path: Path, value: float) -> None:
    def change(content: dict[str, dict[str, torch.Tensor]]) -> None:
        content["generator"]["model.0.bias"][3] = value

    path = changed(BIGCODEC, tmp_path / "bad.pt", change)
    with pytest.raises(CheckpointError, match=r"generator\.model\.0\.bias holds NaN or infinite"):
        load_model(path)


@pytest.mark.parametrize(
    "change",
    [
        {"codec_decoder": {"vq_num_quantizers": 65}},
        {"codec_encoder": {"rnn_num_layers": 1 << 24}},
        {"sample_rate": 1 << 24},
    ],
)
def test_bigcodec_counts_are_limited_before_the_model_is_built(change: dict[str, Any]) -> None:
    config = json.loads((GOLDEN / "bigcodec_micro.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match="must be an integer <= "):
        load_model(BIGCODEC, config=config)


def test_number_of_quantizers_in_a_file_is_limited(tmp_path: Path) -> None:
    def change(content: dict[str, dict[str, torch.Tensor]]) -> None:
        for number in range(5000):
            key = f"quantizer.layers.{number}._codebook.weight"
            content["generator"].setdefault(key, torch.zeros(2, 8))

    path = changed(BIGCODEC, tmp_path / "bad.pt", change)
    with pytest.raises(
        ConfigError, match="`codec_decoder.vq_num_quantizers` must be an integer <= 64, not 5000"
    ):
        load_model(path)


def test_unknown_family_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_native(path, "opus", {}, {"a": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: no codec is called `opus`"):
        load_model(path)


@pytest.mark.parametrize("prefixes", [("CodecEnc", "generator"), ("encoder", "decoder")])
@pytest.mark.parametrize("new_names", [False, True])
@pytest.mark.parametrize("config", [None, {"sample_rate": 16000}])
def test_bigcodec_as_safetensors_of_others_is_read(
    tmp_path: Path, prefixes: tuple[str, str], new_names: bool, config: dict[str, int] | None
) -> None:
    """As `PyTorchModelHubMixin` pushes it: bare tensors, and a config that is not codectool's."""
    _, state, _ = read_weights(BIGCODEC)
    names = dict(zip(("CodecEnc", "generator"), prefixes, strict=True))
    renamed = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        name = f"{names[first]}.{rest}"
        if prefixes[0] == "encoder" and rest.startswith("quantizer."):
            name = rest
        renamed[to_new_name(name) if new_names else name] = tensor.contiguous()
    folder = tmp_path / "repo"
    folder.mkdir()
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    for path in (folder, folder / "model.safetensors"):
        loaded = load_model(path)
        assert loaded.model.family == "bigcodec"
        assert loaded.fingerprint == load_model(BIGCODEC).fingerprint


def test_other_safetensors_without_config_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"encoder.block.0.weight": torch.zeros(2)}, path)
    with pytest.raises(ConfigError, match="no hyper-parameters"):
        load_model(path)
