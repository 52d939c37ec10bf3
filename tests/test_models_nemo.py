"""`.nemo` files: NeMo's are read, ours have NeMo's layout, bad ones get one clear line."""

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nemo_files import change_config, members_of, pack

from models.frontend import FrontendConfig
from models.nemo import NemoFileError, read_nemo, write_nemo
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig
from models.vocabulary import CharacterVocabulary, PieceVocabulary, Vocabulary, train_vocabulary
from spaces.recipe import VocabularyRecipe

NETWORK = QuartzNetConfig(blocks=(
    BlockConfig(filters=8, kernel=5, stride=2, residual=False), BlockConfig(filters=8, repeat=2, kernel=3, dropout=0.1),
    BlockConfig(filters=16, kernel=1, residual=False, separable=False)))
LETTERS = CharacterVocabulary(tuple(" abcñ"))


def _write(path: Path, vocabulary: Vocabulary = LETTERS, frontend: FrontendConfig | None = None) -> AcousticModel:
    model = AcousticModel(NETWORK, vocabulary.size + 1)
    write_nemo(path, frontend or FrontendConfig(), NETWORK, vocabulary, model.state_dict())
    return model


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "model.nemo"
    _write(path)
    yield path


@pytest.mark.parametrize("frontend", [FrontendConfig(), FrontendConfig(padding="reflect", dither=0.0, pad_to=0)])
@pytest.mark.parametrize("vocabulary", [LETTERS, CharacterVocabulary(tuple(" abcn"), fold=True)])
def test_what_is_written_is_read_back(tmp_path: Path, frontend: FrontendConfig, vocabulary: Vocabulary) -> None:
    model = _write(tmp_path / "model.nemo", vocabulary, frontend)
    source = read_nemo(tmp_path / "model.nemo")
    assert (source.frontend, source.network, source.vocabulary) == (frontend, NETWORK, vocabulary)
    assert source.state.keys() == model.state_dict().keys()
    assert all(torch.equal(source.state[name], tensor) for name, tensor in model.state_dict().items())
    assert list(tmp_path.iterdir()) == [tmp_path / "model.nemo"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_are_written_as_nemos_bpe_model_and_read_back(tmp_path: Path, kind: Any) -> None:
    texts = [f"{a} {b} {c}" for a in ("enciende", "apaga", "sube") for b in ("la luz", "el ventilador", "la puerta")
             for c in ("ahora", "mañana", "del salón", "de la cocina")]
    vocabulary = train_vocabulary(VocabularyRecipe(kind=kind, size=34), texts, " abcdefghijklmnopqrstuvwxyzáéíñóúü")
    _write(tmp_path / "model.nemo", vocabulary)
    source = read_nemo(tmp_path / "model.nemo")
    assert isinstance(source.vocabulary, PieceVocabulary)
    assert source.vocabulary == vocabulary
    members = members_of(tmp_path / "model.nemo")
    config = yaml.safe_load(members["model_config.yaml"])
    assert config["target"].endswith("EncDecCTCModelBPE")
    for field in ("model_path", "vocab_path", "spe_tokenizer_vocab"):
        assert config["tokenizer"][field].removeprefix("nemo:") in members
    assert config["decoder"]["num_classes"] == vocabulary.size == len(config["decoder"]["vocabulary"])


def test_weights_and_config_have_the_layout_nemo_saves(shared_data: Path, tmp_path: Path) -> None:
    theirs = shared_data / "reference" / "quartznet5x5_small_random.nemo"
    source = read_nemo(theirs)
    write_nemo(tmp_path / "ours.nemo", source.frontend, source.network, source.vocabulary, source.state)
    weights, configs = [], []
    for path in (theirs, tmp_path / "ours.nemo"):
        members = members_of(path)
        weights.append(torch.load(io.BytesIO(members["model_weights.ckpt"]), weights_only=True))
        configs.append(yaml.safe_load(members["model_config.yaml"]))
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-7)
    for section in ("encoder", "decoder", "labels", "target", "nemo_version", "sample_rate"):
        assert configs[1][section] == configs[0][section]
    assert configs[1]["preprocessor"].items() >= configs[0]["preprocessor"].items()


@pytest.mark.timeout(60)
def test_real_half_precision_checkpoint_is_read(shared_data: Path) -> None:
    source = read_nemo(shared_data / "quartznet15x5_en.nemo")
    assert source.vocabulary == CharacterVocabulary(tuple(" abcdefghijklmnopqrstuvwxyz'"))
    assert len(source.network.blocks) == 18
    assert source.frontend == FrontendConfig()
    assert source.state["decoder.weight"].dtype == torch.float16


def test_gzipped_file_is_read(written: Path) -> None:
    expected = read_nemo(written)
    written.write_bytes(gzip.compress(written.read_bytes()))
    source = read_nemo(written)
    assert source.network == expected.network
    assert all(torch.equal(source.state[name], tensor) for name, tensor in expected.state.items())


@pytest.mark.parametrize(("version", "padding"), [("2.4.0", "reflect"), ("1.0.0rc1", "reflect"), ("2.5.0", "zeros"),
                                                  ("3.0.0", "zeros"), (None, "reflect")])
def test_front_end_follows_the_version_that_saved_the_file(written: Path, version: str | None, padding: str) -> None:
    change_config(written, lambda config: (config.pop("cuarzo"), config.update(nemo_version=version)))
    assert read_nemo(written).frontend.padding == padding


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NemoFileError, match="absent.nemo: there is no such file"):
        read_nemo(tmp_path / "absent.nemo")
    for content in (b"", b"hello " * 1000, gzip.compress(b"hello " * 1000)):
        (tmp_path / "bad.nemo").write_bytes(content)
        with pytest.raises(NemoFileError, match="bad.nemo: .*not a .nemo file"):
            read_nemo(tmp_path / "bad.nemo")


@pytest.mark.parametrize("missing", ["model_config.yaml", "model_weights.ckpt"])
def test_archive_of_something_else_is_named(written: Path, missing: str) -> None:
    members = members_of(written)
    del members[missing]
    pack(written, members)
    with pytest.raises(NemoFileError, match=f"has no {missing}"):
        read_nemo(written)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.8])
def test_truncated_file_is_named(written: Path, share: float, compress: Callable[[bytes], bytes]) -> None:
    content = compress(written.read_bytes())
    written.write_bytes(content[:int(share * len(content))])
    with pytest.raises(NemoFileError, match="truncated|not a .nemo file"):
        read_nemo(written)


@pytest.mark.parametrize(("change", "message"), [
    (lambda config: config["encoder"].update(_target_="nemo.collections.asr.modules.ConformerEncoder"),
     "encoder is .*ConformerEncoder; it must be NeMo's ConvASREncoder"),
    (lambda config: config["encoder"]["jasper"][1].update(se=True), r"jasper\[1\].se is True"),
    (lambda config: config["encoder"].update(conv_mask=False), "encoder.conv_mask is False"),
    (lambda config: config["encoder"]["jasper"][1].update(kernel=[4]), "kernel of a block is 4"),
    (lambda config: config["encoder"]["jasper"][1].update(separable=False), "not separable"),
    (lambda config: config["encoder"]["jasper"][1].pop("stride"), "neither it nor the weights give its stride"),
    (lambda config: config["encoder"].pop("jasper"), "no list of blocks"),
    (lambda config: config["encoder"].update(feat_in="many"), "encoder.feat_in is 'many'"),
    (lambda config: config.pop("encoder"), "no section encoder"),
    (lambda config: config["preprocessor"].update(window_size=0.025), "preprocessor.window_size is 0.025"),
    (lambda config: config["preprocessor"].update(sample_rate=8_000), "preprocessor.sample_rate is 8000"),
    (lambda config: (config["preprocessor"].update(sample_rate="${model.sample_rate}"),
                     config.update(sample_rate=8_000)), "model.sample_rate is 8000"),
    (lambda config: config.update(cuarzo="ours"), "section cuarzo is 'ours'"),
    (lambda config: config["preprocessor"].update(features=80), "80 mels, its encoder takes 64"),
    (lambda config: (config.pop("labels"), config["decoder"].pop("vocabulary")), "no list of labels"),
    (lambda config: config.update(tokenizer={"type": "wpe"}), "no tokenizer.model"),
])
def test_config_that_is_no_quartznets_is_named(written: Path, change: Callable[[dict[str, Any]], object],
                                               message: str) -> None:
    change_config(written, change)
    with pytest.raises(NemoFileError, match=message):
        read_nemo(written)


@pytest.mark.parametrize(("change", "message"), [
    (lambda config: config["decoder"]["vocabulary"].append("z"), r"shape of decoder.weight is \(6, 16\).*\(7, 16\)"),
    (lambda config: config["encoder"]["jasper"][1].update(kernel=[7]), r"layers.0.depthwise is \(8, 1, 3\).*1, 7\)"),
    (lambda config: config["encoder"]["jasper"][1].update(repeat=3), "is missing"),
    (lambda config: config["encoder"]["jasper"][1].update(repeat=1), "is unknown"),
])
def test_weights_that_do_not_fit_are_named(written: Path, change: Callable[[dict[str, Any]], object],
                                           message: str) -> None:
    change_config(written, change)
    with pytest.raises(NemoFileError, match=message):
        read_nemo(written)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"\x80\x04N."])
def test_unreadable_weights_are_named(written: Path, content: bytes) -> None:
    pack(written, members_of(written) | {"model_weights.ckpt": content})
    with pytest.raises(NemoFileError, match="model_weights.ckpt cannot be read"):
        read_nemo(written)


@pytest.mark.parametrize("content", [b"a: [", b"just text", b"\xff\xfe\x00"])
def test_unreadable_config_is_named(written: Path, content: bytes) -> None:
    pack(written, members_of(written) | {"model_config.yaml": content})
    with pytest.raises(NemoFileError, match="model_config.yaml is not"):
        read_nemo(written)


def test_weights_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    state = AcousticModel(NETWORK, 9).state_dict()
    with pytest.raises(NemoFileError, match=r"decoder.weight is \(9, 16\)"):
        write_nemo(tmp_path / "model.nemo", FrontendConfig(), NETWORK, LETTERS, state)
    assert not list(tmp_path.iterdir())
