"""HAC as it is trained; see docs/models/hac.md."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.hac.blocks import Stack
from codectool.codecs.hac.config import AnyHacConfig, HacConfig, parse_config
from codectool.codecs.hac.model import HacCodec, fold
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import index_to_signs
from codectool.codecs.hac.unfold import BATCH_SIZE, calibrate_, load_folded_
from codectool.codecs.hac.voice import VoiceTail
from codectool.codecs.trainable import (
    CropSpec,
    CropTokens,
    Reconstruction,
    TrainableCodec,
    mask_crops,
)

# The scales of the features are updated at every step at first, then at every fourth, and are
# frozen for the last part of the run, so that the weights can adapt to them.
SCALES_EVERY_STEP = 200
SCALES_PERIOD = 4
SCALES_FREEZE = 0.6
# The whitening of the bits is never frozen (bits would drift off balance), but slows down.
BITS_SLOW = 0.6
BITS_WEIGHT, BITS_SLOW_WEIGHT = 0.01, 0.003
# The entropy loss has twice its weight at the start (MaskBit, arXiv 2409.16211, section 4).
ENTROPY_BOOST, ENTROPY_BOOST_UNTIL = 2.0, 0.1


class TrainableHac(TrainableCodec):
    """The network before folding, and the schedules of its running statistics."""

    parse_config = staticmethod(parse_config)
    auxiliary_loss_names = ("commitment", "entropy", "decorrelation")

    def __init__(self, config: AnyHacConfig) -> None:
        super().__init__()
        self.sample_rate = config.sample_rate
        self.network = HacNetwork(config)
        self.entropy_boost = ENTROPY_BOOST

    @classmethod
    @override
    def crop_spec(cls, config: Mapping[str, Any]) -> CropSpec:
        parsed = cls.parse_config(config)
        spec = CropSpec(parsed.sample_rate, parsed.hop_length, parsed.delay_frames + 1)
        if isinstance(parsed, HacConfig) and parsed.source is not None:
            return replace(spec, source_frame=parsed.source_frame)
        return spec

    @override
    def forward(self, wave: Tensor) -> Reconstruction:
        """Encode and decode crops ``(B, 1, N)``; the output lacks the decoder's look-ahead."""
        output = self.network(wave)
        bits = output.bottleneck
        entropy = bits.sample_entropy - bits.batch_entropy
        audio, *others = output.audio.float().split(1, dim=1)
        return Reconstruction(
            audio=audio,
            others=tuple(others),
            target=output.target,
            source=output.source,
            auxiliary_losses={
                "commitment": bits.commitment,
                "entropy": self.entropy_boost * entropy,
                "decorrelation": bits.decorrelation,
            },
        )

    @property
    @override
    def decoder(self) -> Stack:
        return self.network.decoder

    @override
    def freeze_encoder(self) -> None:
        self.network.analysis, self.network.encoder = Stack({}), Stack({})

    @override
    def decoder_state(self) -> dict[str, Tensor]:
        state = copy.deepcopy(self.network).fold_decoder_().state_dict()
        return {f"decoder.{name}": tensor for name, tensor in state.items()}

    @override
    def crop_context(self) -> tuple[int, int]:
        delay = self.network.config.delay_frames
        return max(0, -self.network.first_input() - delay), delay

    @override
    def decode_crops(self, tokens: CropTokens, target: Tensor) -> Reconstruction:
        """Decode crops; the tokens before a crop only give the decoder its state, no gradient."""
        config, before = self.network.config, tokens.before
        signs = index_to_signs(tokens.codes[:, 0], config.num_bits)
        state = None
        if before:
            state = self.network.state_after(signs[:, :before], tokens.starts)
        time = torch.arange(signs.shape[1] - before, device=signs.device)
        # as in `HacCodec.decode`, zeros follow the end of a signal
        inside = (time < tokens.num_frames[:, None])[..., None]
        audio, source = self.network.decode(signs[:, before:].where(inside, 0.0), state)
        lengths = tokens.num_frames * config.hop_length
        outputs = audio.float().chunk(audio.shape[1], 1)
        (audio, *others), target = mask_crops(outputs, target, lengths)
        return Reconstruction(audio, target, {}, tuple(others), source)

    @override
    def prepare_step(self, step: int, progress: float) -> None:
        """Select the running statistics that this step updates, and their rates."""
        often = step < SCALES_EVERY_STEP or step % SCALES_PERIOD == 0
        self.network.track_scales(often and progress < SCALES_FREEZE)
        slow = progress >= BITS_SLOW
        self.network.bottleneck.min_weight = BITS_SLOW_WEIGHT if slow else BITS_WEIGHT
        left = max(0.0, 1 - progress / ENTROPY_BOOST_UNTIL)
        self.entropy_boost = 1 + (ENTROPY_BOOST - 1) * left

    @override
    def compile_parts(self) -> None:
        network = self.network
        modules: list[nn.Module] = [network.encoder, network.decoder]
        *blocks, tail = network.decoder.blocks.values()
        if isinstance(tail, VoiceTail):  # whose phase is tracked outside of PyTorch
            modules = [network.encoder, *blocks, *tail.middle, tail.stem, *tail.last, tail.head]
        for module in modules:
            if next(module.parameters(), None) is not None:  # the encoder may have been dropped
                module.compile(dynamic=False)

    @override
    def inference_model(self) -> HacCodec:
        return fold(self.network)

    @override
    def stored_model(self) -> HacCodec:
        return fold(self.network)

    @override
    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        load_folded_(self.network, state)

    @override
    def load_decoder(self, state: Mapping[str, Tensor]) -> None:
        parts = {name: t for name, t in state.items() if name.startswith("decoder.")}
        load_folded_(self.network, parts)

    @override
    def calibrate(self, crops: Callable[[], tuple[Tensor, CropTokens | None]]) -> None:
        """Measure the scales of the features, which folding removes."""
        waves, tokens = crops()
        if tokens is None:
            calibrate_(self.network, waves)
            return
        count = -(-len(waves) // BATCH_SIZE)
        pairs = zip(tokens.chunk(count), waves.chunk(count), strict=True)
        calibrate_(self.network, waves, [partial(self.decode_crops, *pair) for pair in pairs])

    @override
    def parameters_in_order(self, names: Iterable[str]) -> list[nn.Parameter]:
        return []  # weights are stored folded

    @override
    def has_weight_decay(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim >= 2  # not biases, gains and frequencies
