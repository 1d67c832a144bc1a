"""HAC: causal codecs with 18 bits per frame, on samples (1.35 kbps) or spectra (3.6 kbps)."""

from codectool.codecs.family import CodecFamily, ModelMetadata, Profile, TokenParts
from codectool.tokens import TokenLayout

_LAYOUT = TokenLayout("hac", 24_000, 320, (18,))

FAMILY = CodecFamily(
    name="hac",
    model="codectool.codecs.hac.model:HacCodec",
    token_parts=TokenParts(
        tensors=("encoder.*",),  # it ends in the values whose signs are the bits
        config=(
            *("kind", "sample_rate", "num_bits", "strides", "kernel"),
            # on samples
            *("taps", "encoder_channels", "encoder_hidden", "encoder_dilations"),
            # on spectra
            *("hop_length", "window", "channels", "hidden", "encoder_units", "time_kernel"),
            *("frequency_kernel", "depth_channels", "depth_hidden", "depth_kernel"),
            *("encoder_depth", "mixing", "response_norm"),
        ),
    ),
    export="codectool.codecs.hac.export:export_parts",
    trainable="codectool.codecs.hac.trainable:TrainableHac",
    container_number=1,
    profiles=(Profile(1, "hac", _LAYOUT),),
    published=ModelMetadata(
        layout=_LAYOUT,
        paper="our own design, docs/models/hac.md",
        parameters=4_188_993,
        encoder_lookahead=0,
        decoder_lookahead=640,
    ),
)
