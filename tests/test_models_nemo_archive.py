"""A .nemo file from anywhere is read within bounds, and nothing that it says is run."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo_files import CONFIG, WEIGHTS, change_config, change_weights, members_of, pack

from models import nemo_archive
from models.nemo import NemoFileError, read_nemo

pytestmark = pytest.mark.timeout(60)


class Harmful:
    """Runs code where a pickle of it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def file(shared_data: Path, tmp_path: Path) -> Path:
    (tmp_path / "model.nemo").write_bytes((shared_data / "reference/quartznet5x5_small_random.nemo").read_bytes())
    return tmp_path / "model.nemo"


def refused(path: Path, message: str) -> None:
    with pytest.raises(NemoFileError, match=message) as error:
        read_nemo(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_the_weights_is_not_run(file: Path, tmp_path: Path, is_zip: bool) -> None:
    content = io.BytesIO()
    torch.save({"a": Harmful(tmp_path / "ran")}, content, _use_new_zipfile_serialization=is_zip)
    pack(file, members_of(file) | {WEIGHTS: content.getvalue()})
    refused(file, r"holds more than tensors \(posix.mkdir\), which could run")
    assert not (tmp_path / "ran").exists()


def test_code_in_the_configuration_is_not_run(file: Path, tmp_path: Path) -> None:
    text = f'!!python/object/apply:os.mkdir ["{tmp_path / "ran"}"]'
    pack(file, members_of(file) | {CONFIG: text.encode()})
    refused(file, "is not YAML")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("compress", [False, True])
def test_member_that_is_too_large_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                                              compress: bool) -> None:
    monkeypatch.setitem(nemo_archive.MAX_BYTES, name, 1 << 20)
    pack(file, members_of(file) | {name: bytes(3 << 20)}, mode="w:gz" if compress else "w")
    refused(file, f"its {name} is 3,145,728 bytes; the limit is 1,048,576")


def test_size_that_a_header_only_claims_is_refused(file: Path) -> None:
    member = tarfile.TarInfo(WEIGHTS)
    member.size = 1 << 40
    file.write_bytes(member.tobuf() + bytes(10_240))
    refused(file, "limit|says it is")


def test_more_than_the_limit_in_all_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemo_archive, "MAX_TOTAL_BYTES", 8 << 20)
    pack(file, {"other": bytes(9 << 20)} | members_of(file), mode="w:gz")
    refused(file, "unpack to more than 8,388,608")


def test_number_of_members_is_bounded(file: Path) -> None:
    pack(file, {f"{number}": b"" for number in range(1_000)} | members_of(file))
    refused(file, "more than 1,000 members")


@pytest.mark.parametrize("name", [f"/tmp/{CONFIG}", f"../{CONFIG}", f"\x1b[2J/../{CONFIG}"])
def test_name_that_leads_out_of_the_folder_is_refused(file: Path, name: str) -> None:
    pack(file, {name: b""} | members_of(file))
    refused(file, "the names in a .nemo file stay in its folder")


def test_second_member_of_a_name_is_refused_and_a_macs_shadow_is_none(file: Path) -> None:
    members = members_of(file)
    pack(file, {f"._{name}": b"\0\5\x16\7" for name in members} | members)
    read_nemo(file)
    pack(file, members | {f"other/{CONFIG}": b""})
    refused(file, f"it has two {CONFIG}")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_link_or_device_is_not_followed(file: Path, kind: bytes) -> None:
    with tarfile.open(file, "w") as archive:
        for name in (CONFIG, WEIGHTS):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    refused(file, f"has no {CONFIG}")


def test_weights_that_unpack_to_more_than_the_limit_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nemo_archive.MAX_BYTES, WEIGHTS, 4 << 20)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(5 << 20))
    pack(file, members_of(file) | {WEIGHTS: content.getvalue()})
    refused(file, f"its {WEIGHTS} unpacks to 5,242,880 bytes")


@pytest.mark.parametrize(("change", "message"), [
    (lambda weights: weights.update({"decoder.decoder_layers.0.bias": [0.0] * 29}), "is not a plain tensor"),
    (lambda weights: weights.update({"decoder.decoder_layers.0.bias": torch.zeros(1).expand(29)}), "repeats one"),
    (lambda weights: weights.update({"decoder.decoder_layers.0.bias": torch.arange(29)}), "of torch.int64"),
    (lambda weights: weights.update({"preprocessor.featurizer.stft.basis": torch.zeros(2)}), "stft.basis is unknown"),
])
def test_weights_that_are_none_are_refused(file: Path, change: Callable[[Any], object], message: str) -> None:
    change_weights(file, change)
    refused(file, message)


def test_number_of_convolutions_is_bounded_by_the_weights(file: Path) -> None:
    change_config(file, lambda config: config["encoder"]["jasper"][1].update(repeat=10**12))
    refused(file, "do not fit its model_config.yaml: of 1,000,000,000,023 convolutions")


def nested(first: str, row: str) -> bytes:
    """Eleven lines, each of nine aliases of the one before."""
    return (first + "".join(row.format(n=n, of=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 12))).encode()


@pytest.mark.parametrize("content", [
    nested("a0: &a0 [1]\n", "a{n}: &a{n} [{of}]\n"),
    nested("a0: &a0 {x: 1}\n", "a{n}: &a{n} {{<<: [{of}]}}\n"),
    b"a: &a [*a]", b"[" * 10_000, b"encoder: ${encoder}",
    b"a: ['" + b"', '".join([b"${b}"] * 999) + b"']\nb: ['" + b"', '".join([b"${c}"] * 999) + b"']\nc: 1",
], ids=["aliases", "merges", "cycle", "depth", "reference", "references"])
def test_configuration_that_unfolds_without_end_is_refused(file: Path, content: bytes) -> None:
    pack(file, members_of(file) | {CONFIG: content})
    refused(file, "expands to more than 200,000 values")


def test_folder_is_told_from_a_file(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize(("name", "value"), [("encoder.encoder.0.mconv.0.conv.weight", float("nan")),
                                             ("encoder.encoder.0.mconv.2.running_var", -1.0),
                                             ("decoder.decoder_layers.0.bias", float("inf"))])
def test_weights_of_a_training_that_diverged_are_refused(file: Path, name: str, value: float) -> None:
    change_weights(file, lambda weights: weights | {name: torch.full_like(weights[name], value)})
    refused(file, f"{name} holds numbers that are not finite or, of a variance, below 0")


def test_weights_without_content_are_refused(file: Path) -> None:
    change_weights(file, lambda weights: {name: tensor.to("meta") for name, tensor in weights.items()})
    refused(file, "is not a plain tensor")


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x"])
def test_value_that_yaml_cannot_read_is_told_as_that(file: Path, value: str) -> None:
    pack(file, members_of(file) | {CONFIG: b"a: " + value.encode() + b"\n" + members_of(file)[CONFIG]})
    refused(file, "is not YAML")
