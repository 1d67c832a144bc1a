"""BigCodec configs whose decoder mirrors the encoder."""

from __future__ import annotations

from codectool.codecs.bigcodec.config import BigCodecConfig, DecoderConfig, EncoderConfig


def mirrored_config(
    sample_rate: int,
    ngf: int,
    initial_channel: int,
    up_ratios: tuple[int, ...],
    dilations: tuple[int, ...],
    latent_dim: int,
    rnn_layers: tuple[int, int],
    codebooks: tuple[int, int, int],
    use_rnn: bool = True,
    bidirectional: bool = False,
) -> BigCodecConfig:
    """Return a config with the ratios of the encoder, reversed in the decoder.

    Args:
        sample_rate: rate in Hz.
        ngf: channels of the encoder's first layer.
        initial_channel: channels of the decoder's first layer.
        up_ratios: strides of the encoder.
        dilations: of the residual units of both.
        latent_dim: channels between encoder, quantizer and decoder.
        rnn_layers: LSTM layers of encoder and decoder.
        codebooks: number, size and dimension of the codebooks.
        use_rnn: whether both have an LSTM.
        bidirectional: whether the decoder's LSTM is bidirectional.
    """
    number, size, dim = codebooks
    return BigCodecConfig(
        sample_rate=sample_rate,
        codec_encoder=EncoderConfig(
            ngf=ngf,
            up_ratios=up_ratios,
            dilations=dilations,
            use_rnn=use_rnn,
            rnn_bidirectional=False,
            rnn_num_layers=rnn_layers[0],
            out_channels=latent_dim,
        ),
        codec_decoder=DecoderConfig(
            upsample_initial_channel=initial_channel,
            up_ratios=up_ratios[::-1],
            dilations=dilations,
            use_rnn=use_rnn,
            rnn_bidirectional=bidirectional,
            rnn_num_layers=rnn_layers[1],
            in_channels=latent_dim,
            vq_dim=latent_dim,
            vq_num_quantizers=number,
            codebook_size=size,
            codebook_dim=dim,
        ),
    )
