"""A finished trial's weights hear what its best epoch heard, in the order of the clips."""

import time
from pathlib import Path

import pytest
import torch
from noise_study import RECIPE, SPLITS, make_context

from search.records.job import Job
from search.records.trial_record import TrialRecord
from search.speech.transcribe_split import load_trial, transcribe_trial
from search.trials.context import Link
from search.trials.train_worker import train

pytestmark = pytest.mark.timeout(120)


def test_split_is_transcribed_as_the_training_heard_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context(tmp_path)
    train(Job(id="0000", recipe=RECIPE, seed=3), context, Link(), time.time())
    record = TrialRecord.load(context.folder / "0000")
    transcribe = transcribe_trial._function  # as a Ray task runs it
    texts = transcribe(context, RECIPE, record.best_weights, "dev")
    assert len(texts) == len(SPLITS["dev"]) and texts == record.dev_hypotheses()
    monkeypatch.setattr("search.speech.transcribe_split.BATCH_AUDIO_S", 1)
    assert transcribe(context, RECIPE, record.best_weights, "dev") == texts, "a text depends on its batch"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    weights = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(3)}, weights)
    with pytest.raises(RuntimeError, match="state_dict"):
        load_trial(context, RECIPE, weights)
