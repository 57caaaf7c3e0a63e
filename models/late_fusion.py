"""Late fusion: complete unimodal classifiers, their probabilities combined.

The rules are those of `evaluation.rules`. Weights of `weighted` and `stacking` are fitted on
validation predictions by `fit_combination`, never on training data. Where a modality is missing,
the others decide.

`evidence` is for classifiers that are calibrated each by itself and answer for equal priors: voice
and face are taken for independent witnesses, so their log-probabilities are added; the classifiers
of one face are not independent, so their mean stands for the face. Each member's log-probabilities
are first multiplied by the scale of its own calibration. Nothing is fitted on pairs of both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evaluation.rules import METHODS, combine_members
from models.registry import EmotionModel, build_model, models_of, register_model

MODALITIES = ("face", "landmarks", "blendshapes", "speech")
EVIDENCE = "evidence"
LATE_METHODS = (*METHODS, EVIDENCE)
DEFAULT_METHOD = "product"


@register_model("late_fusion")
class LateFusion(EmotionModel):
    """Classifiers of the same classes, each of one modality; at least two of them.

    Args:
        face, landmarks, speech, blendshapes: {"name": ..., "arguments": {...}} of each member, as
            checkpoints hold them; None for no such member.
        num_classes: classes of all.
        late_method: one of `LATE_METHODS`.
    """

    inputs: tuple[str, ...] = MODALITIES
    head = ("stack",)
    one_head = False
    combines_classifiers = True
    source = "rules: Kittler et al., On combining classifiers, PAMI 1998"
    weight: Tensor
    scale: Tensor

    def __init__(
        self,
        face: dict[str, Any] | None = None,
        landmarks: dict[str, Any] | None = None,
        speech: dict[str, Any] | None = None,
        num_classes: int = 7,
        late_method: str = DEFAULT_METHOD,
        blendshapes: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if late_method not in LATE_METHODS:
            choices = ", ".join(LATE_METHODS)
            raise ValueError(f"unknown late_method {late_method!r}; choose from {choices}")
        self.method = late_method
        given = {"face": face, "landmarks": landmarks}
        given |= {"blendshapes": blendshapes, "speech": speech}
        parts = {name: part for name, part in given.items() if part is not None}
        if len(parts) < 2:
            raise ValueError("a late fusion needs at least two of " + ", ".join(MODALITIES))
        self.inputs = tuple(parts)
        self.members = nn.ModuleDict(
            {name: build_model(part["name"], **part["arguments"]) for name, part in parts.items()}
        )
        self.register_buffer("weight", torch.full((len(parts),), 1 / len(parts)))
        if late_method == EVIDENCE:
            self.register_buffer("scale", torch.ones(len(parts)))
        if late_method == "stacking":
            self.stack = nn.Linear(len(parts) * num_classes, num_classes)
            _start_as_product(self.stack)

    def parts(self) -> dict[str, EmotionModel]:
        """The classifiers, by modality."""
        return models_of(self.members)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Combine.

        Args:
            inputs: of each member its modality and, if some may be missing, `<name>_mask`; and
                `voice_offset` for a member that `WhisperSpeech` is.

        Returns:
            `logits` (B, C), the combined log-probabilities (uniform where nothing is there), and
            the members' own such as `face_logits`.
        """
        logits, present = {}, []
        for name, member in self.members.items():
            x, mask = inputs[name], inputs.get(f"{name}_mask")
            own = {}
            if name == "speech" and "voice_offset" in inputs:
                own["voice_offset"] = inputs["voice_offset"]
            logits[name] = member(x, mask, **own)["logits"]
            there = torch.ones(len(x), dtype=torch.bool, device=x.device)
            present.append(there if mask is None else mask.any(dim=1))
        log_p = torch.stack([logits[m].float().log_softmax(dim=-1) for m in self.members], dim=1)
        combined = self.combine(log_p, torch.stack(present, dim=1))
        return {"logits": combined, **{f"{name}_logits": value for name, value in logits.items()}}

    @property
    def voice_part(self) -> EmotionModel | None:
        parts = (part for name, part in self.members.items() if name == "speech")
        return next((part.voice_part for part in parts if isinstance(part, EmotionModel)), None)

    def combine(self, log_p: Tensor, present: Tensor) -> Tensor:
        """(B, M, C) log-probabilities of M members, (B, M) bool -> (B, C) log-probabilities."""
        if self.method == EVIDENCE:
            return self._add_evidence(log_p, present)
        weights = self.weight if self.method == "weighted" else torch.ones_like(self.weight)
        stack = self.stack if self.method == "stacking" else None
        return combine_members(torch, self.method, log_p, present, weights, stack).log_softmax(-1)

    def _add_evidence(self, log_p: Tensor, present: Tensor) -> Tensor:
        """What the voice says and the mean of what the face's classifiers say, added."""
        calibrated = (log_p * self.scale[:, None]).log_softmax(dim=-1)
        is_voice = torch.tensor([name == "speech" for name in self.members], device=log_p.device)
        total = torch.zeros_like(log_p[:, 0])
        for witness in (is_voice, ~is_voice):
            share = (present & witness).to(log_p.dtype)
            share = share / share.sum(dim=1, keepdim=True).clamp(min=1.0)
            total = total + (calibrated * share.unsqueeze(-1)).sum(dim=1)
        return total.log_softmax(dim=-1)

    def fit_combination(self, outputs: dict[str, Tensor], targets: Tensor) -> None:
        """Fit the weights on validation predictions, as `combination.fit_combination` does.

        Args:
            outputs: (B, C) of each member, such as `face_logits`, of clips that have them all.
            targets: (B,) class indices, or (B, C) probabilities.
        """
        # Here, as inference needs none of it and it takes a second to import.
        from evaluation.combination import fit_combination

        if self.method == EVIDENCE:
            return
        log_p = torch.stack([outputs[f"{m}_logits"].log_softmax(-1) for m in self.members], dim=1)
        fitted = fit_combination(log_p.double().numpy(), targets.numpy(), self.method)
        if fitted.weights is not None:
            self.weight.copy_(torch.from_numpy(fitted.weights))
        if fitted.matrix is not None and fitted.bias is not None:
            with torch.no_grad():
                self.stack.weight.copy_(torch.from_numpy(fitted.matrix))
                self.stack.bias.copy_(torch.from_numpy(fitted.bias))


@torch.no_grad()
def _start_as_product(stack: nn.Linear) -> None:
    classes = stack.out_features
    members = stack.in_features // classes
    stack.weight.copy_(torch.cat([torch.eye(classes)] * members, dim=1) / members)
    stack.bias.zero_()
