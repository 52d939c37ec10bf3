"""The yardstick is the same network, and the benchmark says so before it times anything."""

import json
import subprocess
import sys
from pathlib import Path

import network
import numpy as np
import pytest
import torch
from yardstick import Yardstick

from models.nemo import read_nemo
from models.quartznet import AcousticModel, named_network

ROOT = Path(__file__).resolve().parents[1]


def test_yardstick_gives_nemos_log_probabilities(shared_data: Path) -> None:
    source = read_nemo(shared_data / "reference" / "quartznet5x5_small_random.nemo")
    reference = np.load(shared_data / "reference" / "nemo_quartznet5x5_small_random.npz")
    model = AcousticModel(source.network, source.vocabulary.size + 1)
    model.load_state_dict(source.state)
    yardstick = Yardstick.with_weights_of(model).eval()
    features, lengths = (torch.from_numpy(reference[name]) for name in ("pad16_features", "pad16_feat_len"))
    with torch.inference_mode():
        log_probs, frame_lengths = yardstick(features, lengths)
    assert frame_lengths.tolist() == reference["pad16_enc_len"].tolist()
    torch.testing.assert_close(log_probs, torch.from_numpy(reference["pad16_logprobs"]), rtol=0, atol=1e-4)


def test_contestants_that_differ_are_not_timed() -> None:
    config = named_network("narrow")
    entrants = network.contestants(config, "cpu")
    with torch.no_grad():
        next(entrants[0].trained.parameters()).mul_(1.1)
    with pytest.raises(SystemExit, match="not the same network"):
        network.check_equal(entrants, config, "cpu")


@pytest.mark.timeout(120)
def test_benchmark_prints_a_row_for_each_work_and_precision(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "network.py"), "--network", "narrow", "--sizes", "2x1", "--repeat",
         "1", "--threads", "1", "--json", str(tmp_path / "figures.json")], capture_output=True, text=True, check=True)
    assert "cuarzo and yardstick: log-probabilities within" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {(row["work"], row["precision"]) for row in figures["rows"]} == {
        (work, precision) for work in ("forward", "training", "inference") for precision in ("float32", "bf16")}
    assert all(row["seconds"]["cuarzo"] > 0 and row["seconds"]["yardstick"] > 0 for row in figures["rows"])
    held = {(row["contestant"], row["precision"]): row["held_gb"] for row in figures["memory"]}
    assert 0 < held["cuarzo", "float32"] < held["yardstick", "float32"]


def test_bad_size_is_named() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "network.py"), "--sizes", "16by10"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "clips x seconds, as in 16x10" in done.stderr
