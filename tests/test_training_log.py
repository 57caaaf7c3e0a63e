"""Two epochs on a generated corpus give the losses that were stored when the code was older."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.builders import make_corpus
from tests.runs import no_scores, train

__all__ = ["no_scores"]

# Recorded on the CPU with one thread. A change of these numbers is a change of results.
STORED = {  # of each epoch: training loss, validation loss
    "face_cnn": [(0.70052, 0.69317), (0.16706, 0.69524)],
    "speech_cnn": [(0.52856, 0.36271), (0.79587, 0.37103)],
    "multimodalcnn": [(0.65774, 0.67137), (0.31836, 0.62951)],
}


@pytest.mark.usefixtures("no_scores")
@pytest.mark.parametrize("model", STORED)
def test_two_epochs_give_the_stored_losses(tmp_path: Path, model: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        manifest = make_corpus(tmp_path / "data", per_subset=8)
        options = ["--n_epochs", "2", "--manual_seed", "7", "--device", "cpu", "--model", model]
        run = train(manifest, tmp_path, *options)
    finally:
        torch.set_num_threads(threads)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [(line["train_loss"], line["val_loss"]) for line in log]
    assert losses == [pytest.approx(stored, rel=1e-3) for stored in STORED[model]]
