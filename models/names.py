"""Which module holds which architecture, for all who need their names and not yet torch.

A new architecture is one file and one line here; one from outside is added when it is registered.
"""

from __future__ import annotations

ARCHITECTURES = {
    "blendshape_tcn": "models.blendshape_tcn",
    "cnn_ae_lstm": "models.cnn_ae_lstm",
    "cnn_simple": "models.cnn_simple",
    "cnn_temporal": "models.cnn_temporal",
    "efficientface": "models.efficientface",
    "face_cnn": "models.face_cnn",
    "landmark_tcn": "models.landmark_tcn",
    "late_fusion": "models.late_fusion",
    "mfcc_cnn": "models.speech_cnn",
    "mobilenet_face": "models.mobilenet_face",
    "multimodalcnn": "models.multimodalcnn",
    "resnet3d_lstm": "models.resnet3d_lstm",
    "resnet50": "models.resnet50",
    "resnet_vit_hybrid": "models.resnet_vit_hybrid",
    "speech_cnn": "models.speech_cnn",
    "speech_crnn": "models.speech_crnn",
    "speech_duo": "models.speech_crnn",
    "vit_b_16": "models.vit_b_16",
    "vit_scratch": "models.vit_scratch",
    "whisper_speech": "models.whisper_speech",
}
FUSIONS = ("concat", "ia", "it", "lt")  # of multimodalcnn


def list_architectures() -> tuple[str, ...]:
    """Names of all architectures, sorted."""
    return tuple(sorted(ARCHITECTURES))
