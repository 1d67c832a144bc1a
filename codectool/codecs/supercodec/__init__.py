"""SuperCodec: 16 kHz speech at 1 kbps with two codebooks of 1024 entries (arXiv 2407.20530)."""

from codectool.codecs.family import CodecFamily, ModelMetadata, Profile, TokenParts
from codectool.tokens import TokenLayout

_LAYOUT = TokenLayout("supercodec", 16_000, 320, (10, 10))

FAMILY = CodecFamily(
    name="supercodec",
    model="codectool.codecs.supercodec.model:SuperCodec",
    token_parts=TokenParts(
        tensors=("encoder.*", "rq.*.embed"),  # other tensors of the codebooks serve training
        config=(
            *("sampling_rate", "strides", "channel_mults"),
            *("codebook_size", "codebook_dim", "rq_num_quantizers"),
        ),
    ),
    export="codectool.codecs.supercodec.export:export_parts",
    trainable="codectool.codecs.supercodec.trainable:TrainableSuperCodec",
    training_translator="codectool.codecs.supercodec.training_config:translate",
    container_number=3,
    profiles=(
        Profile(3, "supercodec", _LAYOUT),
        Profile(4, "supercodec-24k", TokenLayout("supercodec", 24_000, 320, (10, 10))),
    ),
    published=ModelMetadata(
        layout=_LAYOUT,
        paper="arXiv 2407.20530",
        parameters=21_708_513,
        encoder_lookahead=None,
        decoder_lookahead=None,
        segment_seconds=60,
    ),
    weights_hint="a folder with g_XXXXXXXX and config.json, as its training writes",
)
