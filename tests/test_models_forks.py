"""A fork of a process that has used a model goes on, or says why it cannot; it never hangs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
BEGIN = """
import multiprocessing, sys
import torch
from models.recognizer import Recognizer

clips = [0.1 * torch.randn(16_000 * seconds, generator=torch.Generator().manual_seed(seconds)) for seconds in (3, 5)]
torch.set_num_threads(2)
path = sys.argv[1]
"""
SCRIPTS = {
    "pytorch": """
recognizer = Recognizer.load(path, precision="float32")
heard = recognizer.transcribe(clips)
def work(clip):
    return recognizer.transcribe([clip])[0], Recognizer.load(path, precision="float32").transcribe([clip])[0]
""",
    "onnx": """
from models.export import export_onnx
from models.onnx_runtime import load_onnx
export_onnx(Recognizer.load(path), path + ".onnx", frontend=True)
transcriber = load_onnx(path + ".onnx", threads=2)
heard = [transcript.text for transcript in transcriber.transcribe(clips)]
def work(clip):
    try:
        next(transcriber.transcribe([clip]))
    except ValueError as error:
        assert "Open it in the process that uses it" in str(error), error
    again = next(load_onnx(path + ".onnx", threads=2).transcribe([clip])).text
    return again, again
""",
}
END = """
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, clips) == [(text, text) for text in heard], heard
print("done")
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_fork_after_a_model_was_used_does_not_hang(shared_data: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / "model.nemo"
    model.write_bytes((shared_data / "reference/quartznet5x5_small_random.nemo").read_bytes())
    process = subprocess.Popen([sys.executable, "-c", BEGIN + SCRIPTS[name] + END, str(model)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, err = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("it hung")
    assert process.returncode == 0 and out == "done\n", err
