"""HAC as it is trained.

Our own recipe; what is known of it stands in docs/models/hac.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from codectool.codecs.hac.codec import HacCodec, fold
from codectool.codecs.hac.config import AnyHacConfig
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import signs_to_index
from codectool.codecs.hac.unfold import calibrate_, load_folded_
from codectool.training.trainee import Reconstruction, Trainee

# The scales of the features follow every step at first, then every fourth, and stand still for the
# last part of the run, so that the weights can settle on them.
SCALES_EVERY_STEP = 200
SCALES_PERIOD = 4
SCALES_FREEZE = 0.6
# The whitening of the bits is never frozen (bits would drift off balance), but slows down.
BITS_SLOW = 0.6
BITS_WEIGHT, BITS_SLOW_WEIGHT = 0.01, 0.003
# The entropy penalty counts double at the start and falls to its weight (MaskBit,
# arXiv 2409.16211, section 4).
ENTROPY_BOOST, ENTROPY_BOOST_UNTIL = 2.0, 0.1


class HacTrainee(Trainee):
    """The trainable network and the schedules of its running statistics."""

    penalty_names = ("commitment", "entropy", "whiteness")

    def __init__(self, config: AnyHacConfig) -> None:
        super().__init__()
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.network = HacNetwork(config)
        self.entropy_boost = ENTROPY_BOOST

    def forward(self, wave: Tensor) -> Reconstruction:
        """``(B, 1, N)``; the output lacks the samples of the decoder's look-ahead."""
        output = self.network(wave)
        bits = output.bottleneck
        entropy = bits.sample_entropy - bits.batch_entropy
        return Reconstruction(
            audio=output.audio.float(),
            target=output.target,
            penalties={
                "commitment": bits.commitment,
                "entropy": self.entropy_boost * entropy,
                "whiteness": bits.decorrelation,
            },
            codes=signs_to_index(bits.values.detach()).unsqueeze(1),
        )

    def prepare(self, step: int, progress: float) -> None:
        """Decide which running statistics move in this step, and how fast."""
        often = step < SCALES_EVERY_STEP or step % SCALES_PERIOD == 0
        self.network.track(scales=often and progress < SCALES_FREEZE, bottleneck=True)
        slow = progress >= BITS_SLOW
        self.network.bottleneck.min_weight = BITS_SLOW_WEIGHT if slow else BITS_WEIGHT
        left = max(0.0, 1 - progress / ENTROPY_BOOST_UNTIL)
        self.entropy_boost = 1 + (ENTROPY_BOOST - 1) * left

    def compile_parts(self) -> None:
        """Compile the two stacks; the bottleneck between them is not worth it."""
        self.network.encoder.compile(dynamic=False)
        self.network.decoder.compile(dynamic=False)

    def codec(self) -> HacCodec:
        """Folded copy."""
        return fold(self.network)

    def stored_codec(self) -> HacCodec:
        """HAC is stored folded."""
        return self.codec()

    def load_codec_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over folded weights; the scales that training needs are found by `settle`."""
        load_folded_(self.network, state)

    def settle(self, crops: Callable[[], Tensor]) -> None:
        """Measure the scales."""
        calibrate_(self.network, crops())

    def decayed(self, name: str, parameter: Tensor) -> bool:
        """Matrices and depthwise kernels decay; biases, gains and frequencies do not."""
        return parameter.ndim >= 2
