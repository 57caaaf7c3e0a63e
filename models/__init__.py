"""Tensors to logits. Opens no file. Importing the package registers every architecture."""

from models import efficientface, face_cnn, late_fusion, multimodalcnn, speech_cnn
from models.registry import EmotionModel, accepted_arguments, build_model, list_models, model_inputs

__all__ = [
    "EmotionModel",
    "accepted_arguments",
    "build_model",
    "efficientface",
    "face_cnn",
    "late_fusion",
    "list_models",
    "model_inputs",
    "multimodalcnn",
    "speech_cnn",
]
