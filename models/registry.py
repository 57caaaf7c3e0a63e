"""Names to architectures. A model declares its `inputs` and returns a dict with `logits`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.names import ARCHITECTURES, list_architectures

if TYPE_CHECKING:
    from models.whisper_speech import WhisperSpeech


class EmotionModel(nn.Module):
    """What every architecture declares, and what `build_model` notes of each one it builds.

    Args:
        inputs: modalities that `forward` takes by name, each with an optional `<name>_mask`.
        head: names of the parts that depend on the classes.
        source: the paper, or "this project", in one line.
        clip_defaults: entries of a ClipConfig that suit the architecture, where they differ.
        default_trainable: names of `blocks` that are trained where pretrained weights are loaded
            and nothing else is asked for; empty for all.
        checkpointing: in training, keep only the borders of large blocks and compute what lies
            between twice. Batch normalisation inside then also averages each batch in twice.
        one_head: whether a single last layer gives the logits, so that what it sees are features.
        single_pictures: whether logits are the mean over pictures that are seen one by one, so that
            one picture alone can be classified.
        class_token: whether it looks at patches of a picture through a class token, so that its
            attention can be rolled out.
        can_branch: whether a fusion can take it as a branch, through `early` and `late`.
        combines_classifiers: whether it is made of classifiers that are trained already, so that
            `fit_combination` takes the place of training.
        keep_gates: of models with gates, add what they let through to the output, as `gate_<name>`.
        width: features of `sequence`.
        middle_width: features between `early` and `late`; 0 where they are `width`.
        name, arguments: what with the weights makes a checkpoint.
    """

    inputs: tuple[str, ...] = ()
    head: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[str] = ""
    clip_defaults: Mapping[str, Any] = MappingProxyType({})
    default_trainable: tuple[str, ...] = ()
    checkpointing: bool = False
    one_head: ClassVar[bool] = True
    single_pictures: ClassVar[bool] = False
    class_token: ClassVar[bool] = False
    can_branch: ClassVar[bool] = False
    combines_classifiers: ClassVar[bool] = False
    keep_gates: bool = False
    width: int
    middle_width: int = 0
    name: str
    arguments: dict[str, Any]

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Part -> name of torchvision's weights for it, such as ResNet50_Weights.IMAGENET1K_V2."""
        return {}

    @property
    def voice_part(self) -> EmotionModel | None:
        """What hears a voice against the speaker's own, by the input `voice_offset`; else None.

        It has `pooled(speech, speech_mask)`, how a voice sounds, and `mean_voice`, that of the
        people it was trained on. A fusion that takes the steps of a branch has none, since
        nothing is pooled before the modalities meet.
        """
        return None

    def mean_voice(self) -> Tensor:
        """(D,): the mean of `pooled` over training, of a `voice_part`."""
        raise NotImplementedError(f"{type(self).__name__} hears no voice")

    def pooled(self, speech: Tensor, speech_mask: Tensor | None = None) -> Tensor:
        """(B, D): how the voices of a batch sound, of a `voice_part`."""
        raise NotImplementedError(f"{type(self).__name__} hears no voice")

    def blocks(self) -> dict[str, nn.Module]:
        """The parts that can be trained or frozen by name; `head` is always one.

        Together they hold every parameter. A block may be a part of another.
        """
        parts = {name: part for name, part in self.named_children() if name not in self.head}
        named = {name: part for name, part in parts.items() if any(True for _ in part.parameters())}
        return {**named, "head": nn.ModuleList(self.heads())}

    def heads(self) -> list[nn.Module]:
        """Those parts named in `head` that this model was built with, in that order."""
        children = dict(self.named_children())
        return [children[name] for name in self.head if name in children]

    def last_layer(self) -> nn.Linear | None:
        """The last linear layer of the heads; None where there is none."""
        layers = [m for head in self.heads() for m in head.modules() if isinstance(m, nn.Linear)]
        return layers[-1] if layers else None

    def parts(self) -> dict[str, EmotionModel]:
        """The models that this one is made of: by modality, where each has its own, or by name."""
        return {}

    def block_encoder(self) -> WhisperSpeech | None:
        """The part (itself or one of `parts`) that encodes sound block by block; None for none."""
        found = (part.block_encoder() for part in self.parts().values())
        return next((encoder for encoder in found if encoder is not None), None)

    def sequence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One modality and its mask -> (B, width, steps), for models that can be a branch."""
        raise NotImplementedError(f"{type(self).__name__} cannot be a branch")

    def early(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What a fusion takes from a branch: (B, middle_width, steps), and which steps exist.

        All of `sequence`, where a model has no halves.
        """
        return self.sequence(x, mask), mask

    def late(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What is left to do after a fusion: (B, width, steps), and which steps exist."""
        return x, mask

    def fit_combination(self, outputs: dict[str, Tensor], targets: Tensor) -> None:
        """Fit on validation predictions what joins the classifiers of `combines_classifiers`."""
        raise NotImplementedError(f"{type(self).__name__} is trained, not fitted")

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for blocks in which nothing is trained: their statistics stay."""
        super().train(mode)
        for block in self.blocks().values() if mode else ():
            parameters = list(block.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                block.eval()
        return self

    def run_block(self, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`block(x)`, not keeping what lies inside where `checkpointing` is on."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)


def set_trainable(model: EmotionModel, names: Iterable[str]) -> None:
    """Train the named blocks and freeze the others; no name at all trains everything.

    Raises:
        ValueError: a name that is not one of the model's blocks.
    """
    blocks, names = model.blocks(), list(names)
    unknown = [name for name in names if name not in blocks]
    if unknown:
        raise ValueError(
            f"{model.name} has no block {', '.join(unknown)} to train; "
            f"choose from {', '.join(blocks)}"
        )
    model.requires_grad_(not names)
    for name in names:
        blocks[name].requires_grad_(True)
    model.train(model.training)


def set_checkpointing(model: EmotionModel, on: bool) -> None:
    """Set `checkpointing` of a model and of every model inside it."""
    for part in all_parts(model):
        part.checkpointing = on


def models_of(members: nn.ModuleDict) -> dict[str, EmotionModel]:
    """Members that are models, as `parts` gives them."""
    return {name: cast(EmotionModel, member) for name, member in members.items()}


def all_parts(model: EmotionModel) -> list[EmotionModel]:
    """The model and every model inside it, outer ones first."""
    return [model, *(inner for part in model.parts().values() for inner in all_parts(part))]


_MODELS: dict[str, type[EmotionModel]] = {}
ModelClass = TypeVar("ModelClass", bound=type[EmotionModel])


def register_model(name: str) -> Callable[[ModelClass], ModelClass]:
    """Class decorator that makes an architecture known by name.

    Raises:
        ValueError: the name is taken, or the class does not declare its `inputs`.
    """

    def register(cls: ModelClass) -> ModelClass:
        if name in _MODELS:
            raise ValueError(f"model name {name!r} is taken by {_MODELS[name].__qualname__}")
        if ARCHITECTURES.get(name, cls.__module__) != cls.__module__:
            raise ValueError(f"model name {name!r} is taken by {ARCHITECTURES[name]}")
        if not cls.inputs:
            raise ValueError(
                f"{cls.__qualname__} must declare `inputs`, such as ('face', 'speech')"
            )
        _MODELS[name] = cls
        ARCHITECTURES[name] = cls.__module__
        return cls

    return register


def list_models() -> list[str]:
    """Names of all architectures, sorted."""
    return list(list_architectures())


def build_model(name: str, **arguments: Any) -> EmotionModel:
    """An architecture with fresh weights. Touches no disk.

    Raises:
        ValueError: unknown name or arguments.
    """
    unknown = sorted(set(arguments) - set(accepted_arguments(name)))
    if unknown:
        raise ValueError(f"model {name!r} takes no argument {', '.join(unknown)}")
    model = find_model(name)(**arguments)
    model.name, model.arguments = name, arguments
    return model


def accepted_arguments(name: str) -> list[str]:
    """Names of the arguments that an architecture takes.

    Raises:
        ValueError: unknown architecture.
    """
    return list(inspect.signature(find_model(name)).parameters)


def model_inputs(name: str) -> tuple[str, ...]:
    """The modalities that an architecture takes, such as ("face", "speech").

    Raises:
        ValueError: unknown architecture.
    """
    return find_model(name).inputs


def find_model(name: str) -> type[EmotionModel]:
    """The class of an architecture, its module imported if it was not.

    Raises:
        ValueError: unknown architecture.
    """
    if name not in _MODELS and name in ARCHITECTURES:
        import_module(ARCHITECTURES[name])
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(list_models())}")
    return _MODELS[name]
