"""What a `.hcd` file costs beside its tokens, from real runs of the three codecs.

    python -m benchmarks.sizes [--json] [--checkpoint bigcodec=bigcodec.pt ...]

Without checkpoints the codecs are narrow ones of random weights with the token layout of the
published models: the size of a file depends on the layout alone.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch

import codectool
from codectool.checkpoints.load import LoadedModel
from codectool.codec import Codec
from codectool.codecs.base import CodecModel
from codectool.codecs.bigcodec.config import BigCodecConfig, DecoderConfig, EncoderConfig
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.hac.codec import untrained
from codectool.codecs.hac.config import load_preset
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from codectool.nn.weight_norm import fold_weight_norm

DURATIONS = (3, 60)


def narrow_models() -> dict[str, CodecModel]:
    """Small models with the token layouts of the published ones."""
    torch.manual_seed(0)
    config = BigCodecConfig(
        sample_rate=16000,
        codec_encoder=EncoderConfig(
            ngf=4,
            up_ratios=(2, 2, 2, 5, 5),
            dilations=(1,),
            use_rnn=False,
            rnn_bidirectional=False,
            rnn_num_layers=1,
            out_channels=8,
        ),
        codec_decoder=DecoderConfig(
            upsample_initial_channel=64,
            up_ratios=(5, 5, 2, 2, 2),
            dilations=(1,),
            use_rnn=False,
            rnn_bidirectional=False,
            rnn_num_layers=1,
            in_channels=8,
            vq_dim=8,
            vq_num_quantizers=1,
            codebook_size=8192,
            codebook_dim=8,
        ),
    )
    big = BigCodec(config)
    small = SuperCodec(SuperCodecConfig(16000, (4, 4, 4, 5), (1, 1, 1, 1), 1024, 16, 2))
    for stage in small.rq.layers:
        stage.embed.normal_()
    for model in (big, small):
        fold_weight_norm(model)
    return {
        "hac": untrained(load_preset("hac")),
        "bigcodec": big,
        "supercodec": small,
    }


def measure(codec: Codec, seconds: int) -> dict[str, int | float | str]:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, seconds * codec.sample_rate).astype(np.float32)
    tokens = codec.encode(wave, codec.sample_rate)
    file = io.BytesIO()
    codectool.write(file, tokens)
    size = len(file.getvalue())
    bits = tokens.num_frames * codec.bits_per_frame
    return {
        "codec": codec.layout.family,
        "seconds": seconds,
        "file_bytes": size,
        "token_bytes": -(-bits // 8),
        "overhead_bytes": size - -(-bits // 8),
        "overhead_percent": round(100 * (size - -(-bits // 8)) / size, 2),
        "kbps": round(8 * size / seconds / 1000, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="CODEC=PATH")
    options = parser.parse_args()
    codecs = {
        family: Codec(LoadedModel(model, "00000000", Path("-")), torch.device("cpu"))
        for family, model in narrow_models().items()
    }
    for choice in options.checkpoint:
        family, _, path = choice.partition("=")
        codecs[family] = codectool.load(family, path, device="cpu")
    rows = [measure(codec, seconds) for seconds in DURATIONS for codec in codecs.values()]
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'codec':12} {'audio':>6} {'file':>7} {'tokens':>7} {'overhead':>8} {'share':>7} kbps")
    for row in rows:
        print(
            f"{row['codec']:12} {row['seconds']:>4} s {row['file_bytes']:>7} "
            f"{row['token_bytes']:>7} {row['overhead_bytes']:>8} {row['overhead_percent']:>6} % "
            f"{row['kbps']}"
        )


if __name__ == "__main__":
    main()
