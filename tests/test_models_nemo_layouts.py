"""`.nemo` files of 2020, what their weights say beside the configuration, and fields that would change the sound."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nemo_files import CONFIG, as_of_2020, change_config, change_weights, members_of, pack

from models.nemo import NemoFileError, SourceModel, read_nemo
from models.recognizer import Recognizer

REFERENCE = "reference/quartznet5x5_small_random.nemo"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def file(shared_data: Path, tmp_path: Path) -> Path:
    """NeMo's own file, to be changed."""
    (tmp_path / "model.nemo").write_bytes((shared_data / REFERENCE).read_bytes())
    return tmp_path / "model.nemo"


def assert_same(read: SourceModel, shared_data: Path) -> None:
    expected = read_nemo(shared_data / REFERENCE)
    assert (read.network, read.vocabulary) == (expected.network, expected.vocabulary)
    assert all(torch.equal(read.state[name], tensor) for name, tensor in expected.state.items())


def _is_beside(old: dict[str, Any]) -> dict[str, Any]:
    old["encoder"]["jasper"] = old["encoder"]["params"].pop("jasper")
    return old


@pytest.mark.parametrize("dots", ["", "./"])
@pytest.mark.parametrize("layout", [
    as_of_2020,
    lambda config: {"trainer": {"max_epochs": 5}, "model": as_of_2020(config)},
    lambda config: _is_beside(as_of_2020(config)),
    lambda config: config | {"preprocessor": as_of_2020(config)["preprocessor"]},
])
def test_file_of_2020_is_read(file: Path, shared_data: Path, layout: Callable[[dict[str, Any]], dict[str, Any]],
                              dots: str) -> None:
    change_weights(file, lambda weights: None, is_zip=False)  # PyTorch's format before 1.6
    members = members_of(file)
    config = yaml.safe_dump(layout(yaml.safe_load(members[CONFIG]))).encode()
    pack(file, {f"{dots}{name}": content for name, content in (members | {CONFIG: config}).items()}, mode="w:gz")
    read = read_nemo(file)
    assert_same(read, shared_data)
    assert Recognizer.load(file).frontend.config == read.frontend


@pytest.mark.parametrize("change", [
    lambda config: config["preprocessor"].update(features="${encoder[feat_in]}", _recursive_=True, _convert_="all"),
    lambda config: config["encoder"]["jasper"][1].update(filters="${encoder.jasper[0].filters}"),
    lambda config: config["encoder"].pop("feat_in"),
    lambda config: [config["encoder"].pop("_target_"), config["decoder"].pop("_target_")],
    lambda config: [row.pop(name, None) for row in config["encoder"]["jasper"]
                    for name in ("filters", "repeat", "kernel", "residual", "separable")],
    lambda config: config["preprocessor"].pop("features"),
    lambda config: [config.pop("labels"), config["decoder"].pop("vocabulary")],
    lambda config: config["decoder"].update(vocabulary="${model.labels}"),
    lambda config: config["encoder"].update(feat_in="${preprocessor.features}"),
    lambda config: config["preprocessor"].update(sample_rate="${..sample_rate}", n_fft=None, highfreq=8000.0,
                                                 dither="1e-5"),
    lambda config: config["preprocessor"].update(window_size=None, n_window_size=320, stft_conv=True),
])
def test_what_the_configuration_leaves_out_is_said_elsewhere_in_the_file(file: Path, shared_data: Path,
                                                                         change: Change) -> None:
    change_config(file, change)
    read = read_nemo(file)
    assert_same(read, shared_data)
    assert read.frontend == read_nemo(shared_data / REFERENCE).frontend


@pytest.mark.parametrize("around", [
    lambda weights: {f"module.{name}": held for name, held in weights.items()},
    lambda weights: {"state_dict": {f"model.{name}": held for name, held in weights.items()}, "epoch": 3},
])
def test_weights_are_found_under_what_wrapped_the_model(file: Path, shared_data: Path, around: Change) -> None:
    change_weights(file, around)
    assert_same(read_nemo(file), shared_data)


@pytest.mark.parametrize(("field", "value"), [
    ("highfreq", 4_000), ("lowfreq", 20), ("mel_norm", None), ("preemph", None), ("n_fft", 1024), ("log", False),
    ("log_zero_guard_type", "clamp"), ("log_zero_guard_value", 1e-10), ("exact_pad", True), ("mag_power", 1.0),
    ("use_torchaudio", True), ("n_window_size", 400), ("window", "hamming"), ("pad_to", "max"), ("pad_to", 10**12),
    ("normalize", "all_features"), ("nb_augmentation_prob", 0.5), ("a_field_to_come", 1), ("dither", "${absent}"),
    ("_target_", "nemo.collections.asr.modules.AudioToMFCCPreprocessor"),
])
def test_front_end_that_is_another_is_refused(file: Path, field: str, value: object) -> None:
    change_config(file, lambda config: config["preprocessor"].update({field: value}))
    name = "preprocessor is" if field == "_target_" else field
    with pytest.raises(NemoFileError, match=rf"model\.nemo: .*{name}.*[Qq]uartzNet|{name} is") as error:
        read_nemo(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "message"), [
    (lambda config: config["encoder"].update(frame_splicing=2), "encoder.frame_splicing is 2"),
    (lambda config: config["encoder"].update(a_field_to_come=1), "encoder.a_field_to_come is 1; no such field"),
    (lambda config: config["encoder"]["jasper"][1].update(kernel=[33, 5]), r"jasper\[1\].kernel is \[33, 5\]"),
    (lambda config: config["encoder"]["jasper"][1].update(kernel=33.5), r"jasper\[1\].kernel is 33.5"),
    (lambda config: config["encoder"]["jasper"][1].update(residual="false"), r"jasper\[1\].residual is 'false'"),
    (lambda config: config["encoder"]["jasper"][1].update(future_context=3), r"jasper\[1\].future_context is 3"),
    (lambda config: config["encoder"]["jasper"][1].update(a_field_to_come=1), r"jasper\[1\].a_field_to_come is 1"),
    (lambda config: config["decoder"].update(add_blank=False), "decoder.add_blank is False"),
    (lambda config: config["decoder"].update(_target_="x.ConvASRDecoderClassification"), "must be NeMo's ConvASRDec"),
])
def test_network_that_is_another_is_refused(file: Path, change: Change, message: str) -> None:
    change_config(file, change)
    with pytest.raises(NemoFileError, match=message):
        read_nemo(file)


@pytest.mark.parametrize(("name", "change"), [
    ("preprocessor.featurizer.fb", lambda held: 1.01 * held),
    ("preprocessor.featurizer.fb", lambda held: held.half() * 1.01),
    ("preprocessor.featurizer.fb", lambda held: held[:, :32]),
    ("preprocessor.featurizer.window", lambda held: torch.hann_window(320)),
    ("preprocessor.featurizer.window", lambda held: torch.hamming_window(320, periodic=False)),
])
def test_filters_and_window_of_the_file_are_compared(file: Path, name: str, change: Callable[[Any], Any]) -> None:
    change_weights(file, lambda weights: weights.update({name: change(weights[name])}))
    with pytest.raises(NemoFileError, match=f"its {name} .*QuartzNet's"):
        read_nemo(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_filters_and_window_of_any_precision_are_taken(file: Path, shared_data: Path, dtype: torch.dtype) -> None:
    change_weights(file, lambda weights: weights.update(
        {name: held.to(dtype) for name, held in weights.items() if name.startswith("preprocessor.")}))
    assert_same(read_nemo(file), shared_data)
