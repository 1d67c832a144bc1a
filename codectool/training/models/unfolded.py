"""Training a codec in the class that also runs it: weight norm is live until a copy is folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from codectool.checkpoints.published import canonical_name, model_name
from codectool.codecs.base import CodecModel
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.supercodec.model import SuperCodec
from codectool.errors import CheckpointError
from codectool.nn.loading import TensorMismatchError, copy_tensors
from codectool.training.trainee import Trainee


class UnfoldedTrainee(Trainee):
    """What training BigCodec and SuperCodec has in common.

    Attributes:
        model: the codec as its constructor makes it, for training.
    """

    def __init__(self, model: BigCodec | SuperCodec) -> None:
        super().__init__()
        self.model = model
        self.sample_rate = model.sample_rate
        self.hop_length = model.hop_length

    def compile_parts(self) -> None:
        """Compile encoder and decoder; the quantizer between them looks at values as it goes."""
        self.model.encoder.compile(dynamic=False)
        self.model.decoder.compile(dynamic=False)

    def codec(self) -> CodecModel:
        """An inference model of the present weights.

        Raises:
            CheckpointError: SuperCodec before its first training step has no codewords yet.
        """
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return type(self.model).from_state(state, self.model.hyper_parameters)

    def stored_codec(self) -> CodecModel:
        """The model itself, weight norm not folded."""
        return self.model

    def load_codec_state(self, state: Mapping[str, Tensor]) -> None:
        """Start from the weights of a checkpoint, by canonical names."""
        family = self.model.family
        try:
            copy_tensors(self.model, {model_name(family, n): value for n, value in state.items()})
        except TensorMismatchError as error:
            text = error.describe(lambda name: canonical_name(family, name))
            raise CheckpointError(
                f"{text}; give `model` in the config the values that the checkpoint was made with"
            ) from error

    def parameters_by(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The parameters among tensors of these canonical names, in their order."""
        mine = dict(self.model.named_parameters())
        wanted = (model_name(self.model.family, name) for name in names)
        return [mine[name] for name in wanted if name in mine]
