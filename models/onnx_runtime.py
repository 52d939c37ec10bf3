"""Run an exported model.onnx in ONNX Runtime instead of PyTorch."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corpora.audio import SAMPLE_RATE_HZ
from models.export import Description, ExportError
from models.frontend import HOP, LogMel
from models.transcription import Transcriber


def load_onnx(path: str | os.PathLike[str], threads: int | None = None) -> Transcriber:
    """A transcriber from an exported file alone; None for `threads` uses all cores.

    Raises:
        ExportError: no such file, not a model that Cuarzo exported, or ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ExportError(f"{path}: needs ONNX Runtime, which is not installed. `pip install onnxruntime` (the extra "
                          "onnx), or use model.nemo.") from None
    if not Path(path).is_file():
        raise ExportError(f"{path}: there is no such file. Check the path.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its error types have no common base
        raise ExportError(f"{path}: not an ONNX model, or damaged ({str(error).splitlines()[0][:200]}).") from None
    try:
        about = Description.from_properties(session.get_modelmeta().custom_metadata_map)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    frontend = None if about.takes_waveforms else LogMel(about.frontend).eval()
    reflects = about.takes_waveforms and about.frontend.padding == "reflect"
    network = _OneByOne(session) if reflects else _Session(session)
    return Transcriber(frontend, network, about.vocabulary, round(about.frame_s * SAMPLE_RATE_HZ / HOP))


class _Session:
    """A session as a Network."""

    def __init__(self, session: Any) -> None:
        self._session, self._process = session, os.getpid()
        self._names = [put.name for put in session.get_inputs()]

    def __call__(self, features: Tensor, lengths: Tensor, /) -> tuple[Tensor, Tensor]:
        if os.getpid() != self._process:
            raise ExportError("the model was opened before this process was forked, and ONNX Runtime's threads are not "
                              "copied: it would wait forever. Open it in the process that uses it.")
        log_probs, log_prob_lengths = self._session.run(
            None, dict(zip(self._names, (features.contiguous().numpy(), lengths.numpy()), strict=True)))
        return torch.from_numpy(log_probs), torch.from_numpy(log_prob_lengths)


class _OneByOne(_Session):
    """A session that runs the clips of a batch one by one: with reflection, a clip's end depends on its batch."""

    def __call__(self, waveforms: Tensor, lengths: Tensor, /) -> tuple[Tensor, Tensor]:
        pairs = [super(_OneByOne, self).__call__(waveforms[row:row + 1, :length], lengths[row:row + 1])
                 for row, length in enumerate(lengths.tolist())]
        log_probs = nn.utils.rnn.pad_sequence([log_probs[0] for log_probs, _ in pairs], batch_first=True)
        return log_probs, torch.cat([frames for _, frames in pairs])
