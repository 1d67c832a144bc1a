"""Full-size weights from nothing but their names, so that full-size parity needs no download.

Each tensor is noise seeded by the CRC-32 of its name, scaled by rules that keep the signal alive.
`python -m tests.full_size_weights bigcodec OUT` writes such a checkpoint in the released layout.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from codectool.checkpoints.published import canonical_name
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from tests.bigcodec_configs import mirrored_config

BIGCODEC = mirrored_config(
    sample_rate=16000,
    ngf=48,
    initial_channel=1536,
    up_ratios=(2, 2, 2, 5, 5),
    dilations=(1, 3, 9),
    latent_dim=1024,
    rnn_layers=(2, 2),
    codebooks=(1, 8192, 8),
)
SUPERCODEC = SuperCodecConfig(
    sampling_rate=16000,
    strides=(4, 4, 4, 5),
    channel_mults=(2, 4, 8, 16),
    codebook_size=1024,
    codebook_dim=256,
    rq_num_quantizers=2,
)


def unit_noise(key: str, count: int) -> np.ndarray:
    """Uniform noise of unit variance, float64, seeded by the name."""
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(count)
    return (2.0 * ((raw >> np.uint64(11)) * 2.0**-53) - 1.0) * math.sqrt(3.0)


def bigcodec_tensor(key: str, shape: tuple[int, ...], taps: torch.Tensor) -> torch.Tensor:
    if key.endswith(".filter"):
        return taps.clone()
    z = unit_noise(key, math.prod(shape)).reshape(shape)
    last = key.rpartition(".")[2]
    if last == "weight_g":
        z = _bigcodec_length(key, shape) * (1 + 0.1 * z)
    elif last == "alpha":
        z = 0.3 * z
    elif last == "beta":
        z = 0.7 + 0.3 * z
    elif ".lstm." in key:
        z = z / math.sqrt(3 * (shape[0] // 4))
    elif last == "bias":
        z = 0.02 * z
    return torch.from_numpy(z.astype(np.float32))


def _bigcodec_length(key: str, shape: tuple[int, ...]) -> float:
    if key.endswith(".block.3.weight_g"):
        return 0.4
    if key == "CodecEnc.block.0.weight_g":
        return 3.0
    if ".in_proj." in key:
        return 2.0
    if ".out_proj." in key:
        return 0.5
    return 0.4 if key.startswith("generator.model.") and shape[0] == 1 else 1.0


def supercodec_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    if key.endswith((".initted", ".cluster_size")):
        return torch.ones(shape)
    # `embed_avg` is the same noise as `embed`.
    z = unit_noise(key.replace("embed_avg", "embed"), math.prod(shape)).reshape(shape)
    if ".embed" in key:
        z = 1.5 * 0.8 ** int(key.split(".")[2]) * z
    elif key.endswith(".bias"):
        z = 0.02 * z
    elif key.endswith(".weight_g"):
        z = 0.5 * (1 + 0.1 * z)
    elif key.endswith((".ups_one.conv.weight", ".ups_two.conv.weight")):
        z = z / math.sqrt(2 * shape[0])
    elif key.endswith(".weight"):
        z = z / math.sqrt(shape[1] * shape[2]) * _supercodec_factor(key, shape)
    return torch.from_numpy(z.astype(np.float32))


def _supercodec_factor(key: str, shape: tuple[int, ...]) -> float:
    if ".skn." in key:
        return 6.0
    if key == "encoder.0.conv.weight":
        return 4.0
    if key == "decoder.0.conv.weight":
        return 0.4
    return 0.035 if key.startswith("decoder.") and shape[0] == 1 else 1.0


def bigcodec_state(taps: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = BigCodec(BIGCODEC)
    shapes = {canonical_name("bigcodec", k): tuple(v.shape) for k, v in model.state_dict().items()}
    return {key: bigcodec_tensor(key, shape, taps) for key, shape in shapes.items()}


def supercodec_state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = SuperCodec(SUPERCODEC)
    shapes = {
        canonical_name("supercodec", k): tuple(v.shape) for k, v in model.state_dict().items()
    }
    return {key: supercodec_tensor(key, shape) for key, shape in shapes.items()}


def write_bigcodec(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write a released-layout ``bigcodec.pt`` (638 MB)."""
    sections = {
        section: {
            key.removeprefix(f"{section}."): tensor
            for key, tensor in state.items()
            if key.startswith(f"{section}.")
        }
        for section in ("CodecEnc", "generator")
    }
    torch.save(sections, path)


def write_supercodec(folder: Path) -> None:
    """Write ``g_00000001`` and ``config.json`` (91 MB)."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"generator": supercodec_state()}, folder / "g_00000001")
    config = {
        "sampling_rate": 16000,
        "strides": [4, 4, 4, 5],
        "channel_mults": [2, 4, 8, 16],
        "codebook_size": 1024,
        "codebook_dim": 256,
        "rq_num_quantizers": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))


def golden_taps() -> torch.Tensor:
    """The filter taps to the bit, from a checkpoint of the suite."""
    path = Path(__file__).parent / "golden" / "bigcodec_micro.pt"
    state = torch.load(path, weights_only=True)["CodecEnc"]
    return next(tensor for key, tensor in state.items() if key.endswith(".filter"))


if __name__ == "__main__":
    family, target = sys.argv[1], Path(sys.argv[2])
    if family == "bigcodec":
        write_bigcodec(target, bigcodec_state(golden_taps()))
    else:
        write_supercodec(target)
