"""Names that can replace a path: QuartzNets of NVIDIA's catalog, LibriSpeech, the Mozilla Data Collective."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corpora.storage import is_uri
from search.config import CORPUS_FIELDS, ConfigError, StudyConfig
from spaces.did_you_mean import nearest

LIBRISPEECH, MOZILLA = "librispeech:", "mdc:"
"""Prefixes of a corpus's name, followed by a subset or a dataset's id."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on a server, and what is known about it."""

    url: str
    terms: str
    """The terms that apply to it."""
    num_bytes: int | None = None
    sha256: str | None = None
    """In hexadecimal."""

    @property
    def file_name(self) -> str:
        """The last part of its address."""
        return self.url.rpartition("/")[2]


_NGC = "https://api.ngc.nvidia.com/v2/models/nvidia"
_NGC_TERMS = "NVIDIA's NGC terms of use apply: https://ngc.nvidia.com/legal/terms"
_NGC_FILES = {
    "stt_en_quartznet15x5": f"{_NGC}/nemo/stt_en_quartznet15x5/versions/1.0.0rc1/files/stt_en_quartznet15x5.nemo",
    "QuartzNet15x5Base-En": f"{_NGC}/nemospeechmodels/versions/1.0.0a5/files/QuartzNet15x5Base-En.nemo",
    "QuartzNet15x5NR-En": f"{_NGC}/nemospeechmodels/versions/1.0.0a5/files/QuartzNet15x5NR-En.nemo",
    "QuartzNet5x5LS-En": f"{_NGC}/nemospeechmodels/versions/1.0.0a5/files/QuartzNet5x5LS-En.nemo",
}
"""Addresses as in NeMo's own lists of models: EncDecCTCModel.list_available_models of NeMo 1.0 and later."""

SOURCES = {name: Remote(url=url, terms=_NGC_TERMS) for name, url in _NGC_FILES.items()}
"""NVIDIA publishes no hashes, so a download is opened before it is kept, and its hash is recorded next to it."""

_SUBSETS = {
    "dev-clean": (337_926_286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (314_305_928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (346_663_984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (328_757_843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": (6_387_309_499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (23_049_477_885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (30_593_501_606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
}
"""Bytes, as Kaldi's download_and_untar.sh checks them, and SHA-256, as torchaudio.datasets.librispeech does."""

SUBSETS = {
    name: Remote(url=f"https://www.openslr.org/resources/12/{name}.tar.gz", num_bytes=num_bytes, sha256=sha256,
                 terms="LibriSpeech is CC BY 4.0: https://www.openslr.org/12")
    for name, (num_bytes, sha256) in _SUBSETS.items()
}
"""Of LibriSpeech, OpenSLR's resource 12."""


def is_name(text: str) -> bool:
    """Whether this is the name of a corpus or a source, not a path.

    Raises:
        ConfigError: it starts like a name, but there is no such name.
    """
    if text.startswith(LIBRISPEECH) and text.removeprefix(LIBRISPEECH) not in SUBSETS:
        near = nearest(text, [LIBRISPEECH + name for name in SUBSETS])
        raise ConfigError(f"corpus is {text!r}; there is no such subset{near}. Give one or several of "
                          f"{', '.join(LIBRISPEECH + name for name in SUBSETS)}.")
    if text.startswith(MOZILLA) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text.removeprefix(MOZILLA)):
        raise ConfigError(f"corpus is {text!r}; after {MOZILLA} comes the id of a dataset, of letters, digits, hyphens "
                          "and underscores. It is the last part of the address of the dataset's page on "
                          "mozilladatacollective.com.")
    return text in SOURCES or text.startswith((LIBRISPEECH, MOZILLA))


def as_given(text: str) -> str:
    """A name or a URI unchanged, a path made absolute.

    Raises:
        ConfigError: as `is_name`.
    """
    return text if is_name(text) or is_uri(text) else str(Path(text).expanduser().resolve())


def located(config: StudyConfig) -> StudyConfig:
    """The configuration with its corpora and source by name, URI or absolute path, so that it works from any folder.

    Raises:
        ConfigError: as `is_name`.
    """
    named: dict[str, Any] = {name: tuple(map(as_given, getattr(config, name))) for name in CORPUS_FIELDS}
    sources = tuple(map(as_given, config.sources.values()))
    return replace(config, source=sources or config.source, **named)
