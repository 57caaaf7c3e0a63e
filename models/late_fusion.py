"""Late fusion: complete unimodal classifiers, their probabilities combined.

`mean` of probabilities, `product` (mean of log-probabilities, normalised), `weighted` mean of
probabilities, and `stacking` (a linear layer over log-probabilities). Weights of the last two are
fitted on validation predictions by `fit_combination`, never on training data. Where a modality is
missing, the other decides alone. Source of the rules: Kittler et al., On combining classifiers,
PAMI 1998.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.registry import EmotionModel, build_model, register_model

METHODS = ("mean", "product", "weighted", "stacking")
MODALITIES = ("face", "speech")


@register_model("late_fusion")
class LateFusion(EmotionModel):
    """A face classifier and a speech classifier of the same classes.

    Args:
        face, speech: {"name": ..., "arguments": {...}} of each member, as checkpoints hold them.
        num_classes: classes of both.
        late_method: one of `METHODS`.
    """

    inputs = ("face", "speech")
    head = ("stack",)
    weight: Tensor

    def __init__(
        self,
        face: dict[str, Any],
        speech: dict[str, Any],
        num_classes: int = 7,
        late_method: str = "product",
    ) -> None:
        super().__init__()
        if late_method not in METHODS:
            choices = ", ".join(METHODS)
            raise ValueError(f"unknown late_method {late_method!r}; choose from {choices}")
        self.method = late_method
        self.members = nn.ModuleDict(
            {
                "face": build_model(face["name"], **face["arguments"]),
                "speech": build_model(speech["name"], **speech["arguments"]),
            }
        )
        self.register_buffer("weight", torch.full((2,), 0.5))
        if late_method == "stacking":
            self.stack = nn.Linear(2 * num_classes, num_classes)
            _start_as_product(self.stack)

    def forward(
        self,
        face: Tensor,
        speech: Tensor,
        face_mask: Tensor | None = None,
        speech_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Combine.

        Returns:
            `logits` (B, C), the combined log-probabilities (uniform where nothing is there), and
            the members' own `face_logits` and `speech_logits`.
        """
        logits = {
            "face": self.members["face"](face, face_mask)["logits"],
            "speech": self.members["speech"](speech, speech_mask)["logits"],
        }
        ones = torch.ones(len(face), dtype=torch.bool, device=face.device)
        seen = ones if face_mask is None else face_mask.any(dim=1)
        heard = ones if speech_mask is None else speech_mask
        log_p = torch.stack([logits[m].float().log_softmax(dim=-1) for m in MODALITIES], dim=1)
        combined = self.combine(log_p, torch.stack([seen, heard], dim=1))
        return {"logits": combined, **{f"{m}_logits": logits[m] for m in MODALITIES}}

    def combine(self, log_p: Tensor, present: Tensor) -> Tensor:
        """(B, 2, C) log-probabilities, (B, 2) bool -> (B, C) log-probabilities."""
        share = (
            self.weight if self.method == "weighted" else torch.ones_like(self.weight)
        ) * present
        # A member of no weight still decides where it is the only one there.
        share = torch.where(share.sum(dim=1, keepdim=True) > 0, share, present.to(share.dtype))
        share = (share / share.sum(dim=1, keepdim=True).clamp(min=1.0e-12)).unsqueeze(-1)
        if self.method in ("product", "stacking"):
            combined = (log_p * share).sum(dim=1)
        else:
            combined = ((log_p.exp() * share).sum(dim=1) + 1e-12).log()
        if self.method == "stacking":
            both = present.all(dim=1, keepdim=True)
            combined = torch.where(both, self.stack(log_p.flatten(1)), combined)
        return combined.log_softmax(dim=-1)

    def fit_combination(self, outputs: dict[str, Tensor], targets: Tensor) -> None:
        """Fit the weights on validation predictions.

        Args:
            outputs: `face_logits`, `speech_logits` (B, C) of clips that have both modalities.
            targets: (B,) class indices, or (B, C) probabilities.
        """
        log_p = torch.stack([outputs[f"{m}_logits"].log_softmax(-1) for m in MODALITIES], dim=1)
        present = torch.ones(len(log_p), 2, dtype=torch.bool)
        loss = nn.CrossEntropyLoss()
        if self.method == "weighted":
            grid = torch.linspace(0, 1, 101)
            losses = []
            for share in grid:
                self.weight.copy_(torch.stack([share, 1 - share]))
                losses.append(loss(self.combine(log_p, present), targets))
            share = grid[int(torch.stack(losses).argmin())]
            self.weight.copy_(torch.stack([share, 1 - share]))
        elif self.method == "stacking":
            self._fit_stack(log_p.flatten(1), targets)

    def _fit_stack(self, features: Tensor, targets: Tensor, decay: float = 1e-2) -> None:
        """Multinomial logistic regression, drawn towards the product rule it starts from."""
        _start_as_product(self.stack)
        start = self.stack.weight.detach().clone()
        optimizer = torch.optim.LBFGS(self.stack.parameters(), max_iter=200)

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(self.stack(features), targets)
            value = value + decay * ((self.stack.weight - start) ** 2).sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(closure)


@torch.no_grad()
def _start_as_product(stack: nn.Linear) -> None:
    classes = stack.out_features
    stack.weight.copy_(torch.cat([torch.eye(classes), torch.eye(classes)], dim=1) / 2)
    stack.bias.zero_()
