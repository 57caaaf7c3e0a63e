"""What a model can do is declared on its class, and the declaration is true."""

from __future__ import annotations

import pytest
import torch

from models import EmotionModel, all_parts, build_model, list_models
from models.registry import find_model
from models.summary import example_arguments, example_input


@pytest.fixture(params=list_models())
def model(request: pytest.FixtureRequest) -> EmotionModel:
    """Any architecture, without memory behind its tensors."""
    with torch.device("meta"):
        return build_model(request.param, **example_arguments(request.param)).eval()


def test_a_model_can_branch_if_it_gives_a_sequence(model: EmotionModel) -> None:
    if not model.can_branch:
        kind = type(model)
        assert kind.early is EmotionModel.early
        assert kind.sequence is EmotionModel.sequence
        return
    with torch.device("meta"):
        (x,) = example_input(model).values()
        features, mask = model.early(x)
        assert features.shape[1] == (model.middle_width or model.width)
        assert model.late(features, mask)[0].shape[1] == model.width


def test_only_models_of_pictures_one_by_one_say_so(model: EmotionModel) -> None:
    if not model.single_pictures:
        return
    assert model.inputs == ("face",)
    real = build_model(model.name, **example_arguments(model.name)).eval()
    face = torch.rand_like(torch.empty(example_input(real)["face"].shape))[:, :2]
    with torch.inference_mode():
        both = real(face=face)["logits"]
        alone = [real(face=face[:, i : i + 1])["logits"] for i in range(2)]
    assert torch.allclose(both, (alone[0] + alone[1]) / 2, atol=1e-4)


def test_parts_are_models_inside_and_share_the_inputs(model: EmotionModel) -> None:
    inside = {id(module) for module in model.modules()}
    assert all(id(part) in inside for part in all_parts(model))
    taken = {name for part in model.parts().values() for name in part.inputs}
    assert taken <= set(model.inputs)
    if model.combines_classifiers:
        assert set(model.parts()) == set(model.inputs)
    else:
        with pytest.raises(NotImplementedError, match="is trained, not fitted"):
            model.fit_combination({}, torch.zeros(0))


def test_only_whisper_encodes_blocks_wherever_it_is() -> None:
    with torch.device("meta"):
        branch = build_model("multimodalcnn", speech_model="whisper_speech")
        assert branch.block_encoder() is branch.audio_model
        alone = build_model("whisper_speech")
        assert alone.block_encoder() is alone
        assert build_model("multimodalcnn").block_encoder() is None


@pytest.mark.parametrize("fusion", ["concat", "ia", "it", "lt"])
def test_the_last_layer_of_a_fusion_is_its_classifiers(fusion: str) -> None:
    with torch.device("meta"):
        model = build_model("multimodalcnn", fusion=fusion, num_classes=5)
    last = model.last_layer()
    assert last is not None
    assert last.out_features == 5


def test_no_architecture_without_a_class_token_claims_one() -> None:
    claiming = {name for name in list_models() if find_model(name).class_token}
    assert claiming == {"vit_b_16", "vit_scratch", "resnet_vit_hybrid"}
