"""The portable network and front end are the trained ones, to rounding, and depend on no length, batch or device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.frontend import FrontendConfig, LogMel
from models.portable import PortableFrontEnd, PortableNetwork, PortableRecognizer
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig, folded
from models.recognizer import Recognizer

pytestmark = pytest.mark.timeout(120)

NETWORK = QuartzNetConfig(num_mels=20, blocks=(
    BlockConfig(filters=24, kernel=5, stride=2, residual=False), BlockConfig(filters=32, repeat=3, kernel=3),
    BlockConfig(filters=16, kernel=7, dilation=2, residual=False),
    BlockConfig(filters=40, kernel=1, residual=False, separable=False)))


@pytest.fixture
def acoustic() -> AcousticModel:
    """Random weights, and statistics of BatchNorm that are not those of a fresh one."""
    torch.manual_seed(0)
    model = AcousticModel(NETWORK, 9)
    for _ in range(3):
        model(torch.randn(4, 20, 50), torch.tensor([50, 41, 30, 9]))
    return model.eval()


@pytest.mark.parametrize("lengths", [[33], [1], [40, 39, 2], [16, 0], [50, 60, 17, 30, 1]])
def test_network_is_the_trained_one_in_double_precision(acoustic: AcousticModel, lengths: list[int]) -> None:
    features = torch.randn(len(lengths), 20, min(max(lengths), 50), dtype=torch.float64)
    with torch.inference_mode():
        expected, expected_lengths = acoustic.double()(features, torch.tensor(lengths))
        # Folded to float32 and widened: what is left is the rounding of the weights.
        given, given_lengths = PortableNetwork(acoustic).double()(features, torch.tensor(lengths))
    assert torch.equal(given_lengths, expected_lengths)
    for row, length in enumerate(expected_lengths.tolist()):
        torch.testing.assert_close(given[row, :length].float(), expected[row, :length], rtol=0, atol=5e-6)


def test_padding_says_nothing(acoustic: AcousticModel) -> None:
    network, lengths = PortableNetwork(acoustic), torch.tensor([40, 21])
    features = torch.randn(2, 20, 40)
    loud = features.clone()
    loud[1, :, 21:] = 1000.0
    torch.testing.assert_close(network(loud, lengths)[0], network(features, lengths)[0], rtol=0, atol=0)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("pad_to", [0, 16])
def test_front_end_is_log_mel(padding: str, pad_to: int) -> None:
    frontend = LogMel(FrontendConfig(padding=padding, pad_to=pad_to)).eval()  # type: ignore[arg-type]
    for lengths in ([16_000], [9_999, 8_000, 320], [400], [161]):
        if padding == "reflect" and max(lengths) < 257:
            continue
        waveforms = torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(1))
        expected, expected_frames = frontend(waveforms, torch.tensor(lengths))
        given, frames = PortableFrontEnd(frontend)(waveforms, torch.tensor(lengths))
        assert torch.equal(frames, expected_frames)
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-4)


def test_front_end_is_nearer_to_exact_features_than_an_fft_in_float32(shared_data: Path) -> None:
    reference = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")
    waveforms, lengths = (torch.from_numpy(reference[name]) for name in ("waveforms", "waveform_lengths"))
    frontend = LogMel(FrontendConfig()).eval()
    ours, by_fft = PortableFrontEnd(frontend)(waveforms, lengths)[0], frontend(waveforms, lengths)[0]
    spectrum = torch.stft(_emphasised(waveforms, lengths).double(), 512, 160, 320, frontend.window.double(),
                          pad_mode="constant", return_complex=True)
    energies = torch.log(frontend.filters.double() @ spectrum.abs().square() + 2.0**-24)
    exact = torch.zeros_like(ours, dtype=torch.float64)
    for row, frames in enumerate((lengths // 160).tolist()):
        clip = energies[row, :, :frames]
        exact[row, :, :frames] = (clip - clip.mean(1, keepdim=True)) / (clip.std(1, keepdim=True) + 1e-5)
    assert (ours - exact).abs().max() < min((by_fft - exact).abs().max().item(), 1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_trace_holds_no_device(acoustic: AcousticModel) -> None:
    model = PortableRecognizer(LogMel(FrontendConfig(num_mels=20)), acoustic).eval()
    traced = torch.jit.trace(model, (torch.randn(2, 4_000), torch.tensor([4_000, 900])), check_trace=False)
    graph = str(traced.inlined_graph)
    assert "aten::ones_like" in graph and 'prim::Constant[value="cpu"]' not in graph


def test_network_follows_the_kernels_in_float32_on_speech(shared_data: Path) -> None:
    recognizer = Recognizer.load(shared_data / "reference" / "quartznet5x5_small_random.nemo")
    reference = np.load(shared_data / "reference" / "nemo_quartznet5x5_small_random.npz")
    features, lengths = (torch.from_numpy(reference[name]) for name in ("pad16_features", "pad16_feat_len"))
    with torch.inference_mode():
        expected, expected_lengths = folded(recognizer.acoustic)(features, lengths)
        given, given_lengths = PortableNetwork(recognizer.acoustic)(features, lengths)
    assert torch.equal(given_lengths, expected_lengths)
    for row, length in enumerate(given_lengths.tolist()):
        torch.testing.assert_close(given[row, :length].exp(), expected[row, :length].exp(), rtol=0, atol=1e-4)


def _emphasised(waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """In float32, as both have it."""
    emphasised = torch.cat((waveforms[:, :1], waveforms[:, 1:] - 0.97 * waveforms[:, :-1]), dim=1)
    return emphasised.masked_fill(torch.arange(waveforms.shape[1]) >= lengths[:, None], 0.0)
