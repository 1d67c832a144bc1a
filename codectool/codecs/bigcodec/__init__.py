"""BigCodec: 16 kHz speech at 1.04 kbps with one codebook of 8192 entries (arXiv 2409.05377)."""

from codectool.codecs.family import CodecFamily, ModelMetadata, Profile, TokenParts
from codectool.tokens import TokenLayout

_LAYOUT = TokenLayout("bigcodec", 16_000, 200, (13,))

FAMILY = CodecFamily(
    name="bigcodec",
    model="codectool.codecs.bigcodec.model:BigCodec",
    token_parts=TokenParts(
        tensors=("CodecEnc.*", "generator.quantizer.*"),
        config=(
            *("sample_rate", "codec_encoder", "codec_decoder.vq_num_quantizers"),
            *("codec_decoder.codebook_size", "codec_decoder.codebook_dim"),
        ),
    ),
    export="codectool.codecs.bigcodec.export:export_parts",
    trainable="codectool.codecs.bigcodec.trainable:TrainableBigCodec",
    container_number=2,
    profiles=(Profile(2, "bigcodec", _LAYOUT),),
    published=ModelMetadata(
        layout=_LAYOUT,
        paper="arXiv 2409.05377",
        parameters=159_436_290,
        encoder_lookahead=5376,
        decoder_lookahead=6000,
    ),
    weights_hint="the authors publish one file, bigcodec.pt",
)
