"""From names to files: NVIDIA's, OpenSLR's and Mozilla's servers are one of ours, the clients are the real ones."""

import hashlib
import io
import json
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from broken_server import Answer, Handler, Server, all_of_it, breaks_after, interrupts, status
from nemo_files import as_of_2020, change_config, members_of, pack

from models.frontend import FrontendConfig
from models.nemo import NemoFileError, read_nemo, write_nemo
from models.quartznet import AcousticModel, named_network
from models.vocabulary import CharacterVocabulary
from search.config import ConfigError, StudyConfig, load_config
from search.records.disk_space import is_full
from search.records.run_folder import RunFolder
from search.speech.catalog import Remote, located
from search.speech.download import download
from search.speech.resolve import local_path
from search.speech.retry import DownloadError
from search.speech.study_inputs import identify, open_inputs

pytestmark = pytest.mark.timeout(60)

AT_ONCE = (0.0, 0.0)
"""Waits before new attempts."""


@pytest.fixture
def nemo(tmp_path: Path) -> bytes:
    """A source, gzipped as NVIDIA's older ones are."""
    network = named_network("narrow")
    letters = CharacterVocabulary(tuple(" abc"))
    plain, gzipped = tmp_path / "plain.nemo", io.BytesIO()
    write_nemo(plain, FrontendConfig(), network, letters, AcousticModel(network, 5).state_dict())
    with tarfile.open(plain) as read, tarfile.open(fileobj=gzipped, mode="w:gz") as written:
        for member in read:
            written.addfile(member, read.extractfile(member))
    return gzipped.getvalue()


def tarball(*subsets: str) -> bytes:
    """Subsets of LibriSpeech with a chapter of two clips each."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for number, subset in enumerate(subsets):
            names = [f"{number}-7-0000", f"{number}-7-0001"]
            files = {f"{name}.flac": b"fLaC" for name in names} | {
                f"{number}-7.trans.txt": "".join(f"{name} HE SAID\n" for name in names).encode()}
            for name, held in files.items():
                member = tarfile.TarInfo(f"LibriSpeech/{subset}/{number}/7/{name}")
                member.size = len(held)
                archive.addfile(member, io.BytesIO(held))
    return content.getvalue()


def test_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert local_path("~/a.nemo", tmp_path) == Path("~/a.nemo").expanduser()
    assert list(tmp_path.iterdir()) == []


# --- NVIDIA's catalog and OpenSLR ----------------------------------------------------------------------------------


def test_source_comes_by_name_once_and_opens(
    server: Server, tmp_path: Path, nemo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = nemo
    path = local_path("stt_en_quartznet15x5", tmp_path / "cache", server=server.url, waits_s=AT_ONCE)
    assert server.paths == ["GET /v2/models/nvidia/nemo/stt_en_quartznet15x5/versions/1.0.0rc1/files/"
                            "stt_en_quartznet15x5.nemo"]
    assert "NGC terms of use" in capsys.readouterr().err
    config = StudyConfig(source="stt_en_quartznet15x5", corpus=(str(manifest(tmp_path)),),
                         cache=str(tmp_path / "cache")).resolved()
    server.shutdown()
    inputs = open_inputs(config)  # from the cache: the name's own server is never asked
    assert inputs is not None and inputs.source is not None and inputs.source.network == named_network("narrow")
    assert identify(config, inputs).source == hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(folder: Path) -> Path:
    """Of three speakers."""
    rows = [{"audio_filepath": f"{n}.wav", "text": "hola", "speaker": f"s{n}"} for n in range(3)]
    (folder / "es.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "es.jsonl"


@pytest.mark.parametrize("share", [0.99, 0.5, 0.0])
def test_source_that_came_cut_off_is_not_kept(server: Server, tmp_path: Path, nemo: bytes, share: float) -> None:
    server.content = nemo[: int(share * len(nemo))]
    with pytest.raises(DownloadError, match="cannot be opened: .*It was removed") as error:
        local_path("QuartzNet15x5Base-En", tmp_path, server=server.url, waits_s=AT_ONCE)
    assert "\n" not in str(error.value)
    assert [path.suffix for path in (tmp_path / "downloads" / "sources").iterdir() if path.suffix != ".json"] == [
        ".lock"]


def test_whole_source_that_cannot_be_used_stays_and_says_why(server: Server, tmp_path: Path, nemo: bytes) -> None:
    (tmp_path / "conv.nemo").write_bytes(nemo)
    change_config(tmp_path / "conv.nemo", lambda config: config["encoder"].update(conv_mask=False))
    server.content = (tmp_path / "conv.nemo").read_bytes()
    config = StudyConfig(source="QuartzNet15x5Base-En", corpus=(str(manifest(tmp_path)),), cache=str(tmp_path))
    path = local_path("QuartzNet15x5Base-En", tmp_path, server=server.url, waits_s=AT_ONCE)
    server.shutdown()
    with pytest.raises(NemoFileError, match="QuartzNet15x5Base-En.nemo: encoder.conv_mask is False") as error:
        open_inputs(config.resolved())
    assert path.exists() and "same command" not in str(error.value) and "removed" not in str(error.value)


def test_named_source_of_2020_comes_and_opens(server: Server, tmp_path: Path, nemo: bytes) -> None:
    (tmp_path / "new.nemo").write_bytes(nemo)
    members = members_of(tmp_path / "new.nemo")
    old = yaml.safe_dump(as_of_2020(yaml.safe_load(members["model_config.yaml"])))
    members |= {"model_config.yaml": old.encode()}
    server.content = pack(tmp_path / "old.nemo", members, mode="w:gz").read_bytes()
    path = local_path("QuartzNet5x5LS-En", tmp_path, server=server.url, waits_s=AT_ONCE)
    assert read_nemo(path).network == named_network("narrow")


def test_librispeech_is_held_against_its_recorded_size(server: Server, tmp_path: Path) -> None:
    server.content = tarball("dev-clean")
    with pytest.raises(DownloadError, match=r"/resources/12/dev-clean.tar.gz: the server announces [\d,]+ bytes; the "
                                            "file has 337,926,286"):
        local_path("librispeech:dev-clean", tmp_path, server=server.url, waits_s=AT_ONCE)


def test_subsets_by_name_are_one_corpus_and_a_resumed_study_needs_no_network(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    names = ("train-clean-100", "dev-clean", "test-clean")
    for name in names:  # as OpenSLR's would, with a size and hash of its own
        server.content = tarball(name)
        download(Remote(url=f"{server.url}/{name}.tar.gz", terms="", num_bytes=len(server.content),
                        sha256=hashlib.sha256(server.content).hexdigest()),
                 cache / "downloads" / "librispeech" / f"{name}.tar.gz", waits_s=AT_ONCE)
    server.shutdown()
    config = StudyConfig(corpus=tuple(f"librispeech:{name}" for name in names), source="none", language="en",
                         cache=str(cache), out=str(tmp_path / "run"))
    run = RunFolder.open(located(config), resume=False)
    inputs = open_inputs(run.config)
    assert inputs is not None
    assert [{split: len(manifest) for split, manifest in corpus.splits.items()} for corpus in inputs.corpora] == [
        {"train": 2}, {"dev": 2}, {"test": 2}]
    run.path.mkdir()
    run.begin(identify(run.config, inputs))
    assert load_config(run.path).corpus == config.corpus
    (run.path / "study.db").touch()
    again = RunFolder.open(load_config(run.path), resume=True)
    again.begin(identify(again.config, open_inputs(again.config)))


@pytest.mark.parametrize(("other", "said"), [
    ("absent.tar.gz", "there is no such file"), ("mdc:/", "comes the id"),
    ("stt_en_quartznet15x5", "there is no such file or folder. Give the path of")])
def test_a_wrong_corpus_is_told_before_another_is_downloaded(tmp_path: Path, other: str, said: str) -> None:
    config = StudyConfig(corpus=("librispeech:train-clean-100", other), source="none", cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=said):
        open_inputs(config.resolved())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["librispeech:train-other-500", "mdc:spanish", "s3://bucket/a.nemo", "absent.nemo"])
def test_source_that_is_none_is_told_before_it_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr("search.speech.study_inputs.local_path", lambda *_: pytest.fail("it was downloaded"))
    config = StudyConfig(corpus=(str(manifest(tmp_path)),), source=source, cache=str(tmp_path / "cache")).resolved()
    with pytest.raises(ConfigError, match=f"{source}: there is no such file. Name a .nemo file, stt_en_quartznet15x5"):
        open_inputs(config)
    assert not (tmp_path / "cache").exists()


def test_wrong_name_leaves_nothing_behind(tmp_path: Path) -> None:
    config = StudyConfig(corpus=("librispeech:dev",), source="none", out=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="no such subset"):
        RunFolder.open(located(config), resume=False)
    assert list(tmp_path.iterdir()) == []


# --- Mozilla Data Collective ----------------------------------------------------------------------------------------


ID = "cminc35no007no707hql26lzk"
FILE = "cv-corpus-25.0-es.tar.gz"


@pytest.fixture
def mozilla(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """A server that speaks as Mozilla's does to its client, whose key and address are set."""
    pytest.importorskip("datacollective")
    monkeypatch.setenv("MDC_API_KEY", "secret")
    monkeypatch.setenv("MDC_API_URL", f"{server.url}/api")
    server.always = speaks()
    return server


def speaks(archive: Answer | None = None, **told: Any) -> Answer:
    """An answer to every request of the client's; `told` changes what is said of the dataset."""

    def answer(handler: Handler) -> None:
        size, checksum = len(handler.server.content), hashlib.sha256(handler.server.content).hexdigest()
        details = {"id": ID, "name": "Spanish", "filename": FILE, "sizeBytes": size, "checksum": checksum,
                   "licenseAbbreviation": "CC0-1.0"} | told
        session = {"downloadUrl": f"{handler.server.url}/archive", "sizeBytes": size, "checksum": checksum}
        if handler.path == "/archive":
            if archive:
                archive(handler)
            else:
                breaks_after(10**9)(handler)
            return
        if handler.path == f"/api/datasets/{ID}/download":
            assert handler.command == "POST" and handler.headers["Authorization"] == "Bearer secret"
            handler.send(200, json.dumps(session).encode(), Content_Type="application/json")
        else:
            assert handler.path == f"/api/datasets/{ID}"
            handler.send(200, json.dumps(details).encode(), Content_Type="application/json")

    return answer


def bring(cache: Path) -> Path:
    return local_path(f"mdc:{ID}", cache, waits_s=AT_ONCE)


def test_dataset_comes_by_mozillas_client_once(
    mozilla: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bring(tmp_path)
    assert path == tmp_path / "downloads" / "mdc" / ID / FILE and path.read_bytes() == mozilla.content
    assert f"its terms apply (CC0-1.0): https://mozilladatacollective.com/datasets/{ID}\n" in (
        capsys.readouterr().err)
    mozilla.always = status(500)
    monkeypatch.delenv("MDC_API_KEY")
    assert bring(tmp_path) == path


def test_archive_that_breaks_off_is_gone_on_with(mozilla: Server, tmp_path: Path) -> None:
    mozilla.always = speaks(breaks_after(3 << 16))
    assert bring(tmp_path).read_bytes() == mozilla.content
    assert [asked for asked in mozilla.asked if asked] == ["bytes=196608-"]


def test_archive_of_another_length_is_removed(mozilla: Server, tmp_path: Path) -> None:
    answers = iter([breaks_after(3 << 16), all_of_it, breaks_after(10**9)])
    mozilla.always = speaks(lambda handler: next(answers)(handler))
    with pytest.raises(DownloadError, match=rf"mdc:{ID}: 503,808 bytes arrived; Mozilla's file has 307,200. It was re"):
        bring(tmp_path)
    assert bring(tmp_path).read_bytes() == mozilla.content


def test_part_as_long_as_the_whole_does_not_stop_the_client_for_good(mozilla: Server, tmp_path: Path) -> None:
    mozilla.always = speaks(breaks_after(1 << 16))
    with pytest.raises(DownloadError):
        bring(tmp_path)
    (tmp_path / "downloads" / "mdc" / ID / f"{FILE}.part").write_bytes(bytes(len(mozilla.content)))
    mozilla.always = speaks()
    assert bring(tmp_path).read_bytes() == mozilla.content


@pytest.mark.parametrize(("answer", "said"), [
    (status(401), "Create a new key in your profile"), (status(404), "Check the id"), (status(410), "Check the id"),
    (status(403, b'{"message": "Terms not accepted"}'), "Terms not accepted. Accept the dataset's terms on https://moz"),
    (status(400), "Download it yourself"), (status(200, b"<html>"), "Download it yourself"),
    (speaks(filename="../escaped.tar.gz"), "names its file '../escaped.tar.gz', which is not a file name"),
    (speaks(filename=None), "names its file None"),
    (status(503), "3 attempts failed one after another"), (status(429), "3 attempts failed one after another"),
    (speaks(breaks_after(1 << 16)), "3 attempts failed one after another. 196,608 bytes are kept"),
    (speaks(status(403)), "Access denied")])
def test_refusal_is_one_clear_line(mozilla: Server, tmp_path: Path, answer: Answer, said: str) -> None:
    mozilla.always = answer
    with pytest.raises(DownloadError) as error:
        bring(tmp_path)
    assert said in str(error.value) and str(error.value).startswith(f"mdc:{ID}: ") and "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_ctrl_c_in_mozillas_client_is_ctrl_c(mozilla: Server, tmp_path: Path, ctrl_c: None) -> None:
    stop = threading.Event()
    mozilla.always = speaks(interrupts(tmp_path / "downloads" / "mdc" / ID / f"{FILE}.part", stop))
    with pytest.raises(KeyboardInterrupt):
        bring(tmp_path)
    stop.set()


def test_disk_that_gets_full_is_said_as_such(mozilla: Server, tmp_path: Path) -> None:
    folder = tmp_path / "downloads" / "mdc" / ID
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").symlink_to("/dev/full")
    (folder / f"{FILE}.checksum").write_text(hashlib.sha256(mozilla.content).hexdigest())
    with pytest.raises(Exception) as error:
        bring(tmp_path)
    assert is_full(error.value) and not isinstance(error.value, DownloadError)


def test_no_room_is_told_before_the_first_byte(mozilla: Server, tmp_path: Path) -> None:
    mozilla.always = speaks(sizeBytes=10**15)
    with pytest.raises(ConfigError, match=f"{FILE} needs at least 1,000,000,000 MB there"):
        bring(tmp_path)


def test_missing_key_names_terms_and_key(mozilla: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MDC_API_KEY")
    with pytest.raises(DownloadError, match=f"MDC_API_KEY is not set. Accept the dataset's terms on .*/datasets/{ID}, "
                                            "create a key in your profile"):
        bring(tmp_path)
    assert mozilla.asked == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["secret\n", "secret\nsecret", "secret…"])
def test_key_that_is_none_is_not_printed(
    mozilla: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MDC_API_KEY", key)
    with pytest.raises(DownloadError, match="MDC_API_KEY holds a line break or another character") as error:
        bring(tmp_path)
    assert "secret" not in str(error.value) and mozilla.asked == []


def test_signature_of_an_address_is_not_printed(mozilla: Server, tmp_path: Path) -> None:
    def refuse(handler: Handler) -> None:
        if handler.path.startswith("/archive"):
            handler.send(403)
        elif handler.path.endswith("/download"):
            handler.send(200, json.dumps({"downloadUrl": f"{handler.server.url}/archive?signature=secret",
                                          "sizeBytes": 9, "checksum": "0"}).encode())
        else:
            speaks()(handler)

    mozilla.always = refuse
    with pytest.raises(DownloadError, match="Access denied: GET .*/archive ") as error:
        bring(tmp_path)
    assert mozilla.paths[-1].endswith("signature=secret") and "secret" not in str(error.value)


def test_missing_client_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datacollective", None)
    with pytest.raises(DownloadError, match=r"is not installed. Install it with .*\[mdc\]"):
        bring(tmp_path)
