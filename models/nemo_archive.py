"""Read the members of a .nemo file within limits: it may come from anywhere, and NVIDIA publishes no hashes."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from corpora.manifest import CorpusError
from corpora.tarball import Tarball, open_tarball
from files.saved import UnsafeFileError, load_saved

CONFIG, WEIGHTS, TOKENIZER = "model_config.yaml", "model_weights.ckpt", "tokenizer.model"

MAX_BYTES = {CONFIG: 1 << 20, WEIGHTS: 1 << 30, TOKENIZER: 16 << 20}
"""A 15x5 has 8 kB, 76 MB and, with 1,024 pieces, 0.3 MB."""
MAX_MEMBERS = 1_000
MAX_TOTAL_BYTES = 2 << 30
"""Of all members; those that are not read are unpacked too, to skip them."""

_PREFIXES = ("", "module.", "model.", "_orig_mod.")
"""Prefixes that DDP, Lightning and torch.compile add to the names of a model's weights."""
_A_WEIGHT = "decoder.decoder_layers.0.weight"


class NemoFileError(ValueError):
    """A .nemo file that cannot be read or holds no QuartzNet."""


class DamagedNemoFileError(NemoFileError):
    """A file that is not a whole .nemo file; another copy of it may be."""


def read_members(path: Path) -> dict[str, bytes]:
    """The files that are read, by name without NeMo's hash prefix; the tokenizer may be absent.

    Raises:
        NemoFileError: no such file, not a .nemo file, damaged, or beyond the limits.
    """
    if path.is_dir():
        raise NemoFileError(f"{path}: is a folder. Name the .nemo file, or pack the folder: tar -cf model.nemo -C "
                            f"FOLDER .")
    if not path.is_file():
        raise NemoFileError(f"{path}: there is no such file. Name a .nemo file.")
    members: dict[str, bytes] = {}
    num_seen = 0
    try:
        with open_tarball(str(path.absolute()), max_members=MAX_MEMBERS, max_bytes=MAX_TOTAL_BYTES) as tarball:
            for member in tarball.files():
                num_seen += 1
                _take(tarball, member, members)
    except CorpusError as error:
        detail = str(error.__cause__ or error).removeprefix(f"{path.absolute()}: ")
        detail = detail.removesuffix(" Download it again.").replace(", which is not audio", "")  # a corpus's words
        if isinstance(error.__cause__, OSError) and error.__cause__.errno:
            why = error.__cause__.strerror
            raise NemoFileError(f"{path}: cannot be read ({why}). Check its permissions.") from error
        what, fix = (("a truncated or damaged .nemo file", "Download it again.") if num_seen else
                     ("not a .nemo file (a tar), or a truncated one", "Name one, or download it again."))
        raise DamagedNemoFileError(f"{path}: {what} ({detail.rstrip('.')}). {fix}") from error
    except NemoFileError as error:
        raise NemoFileError(f"{path}: {error}") from error
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise DamagedNemoFileError(f"{path}: has no {name}, so it is not a .nemo file, or a truncated one.")
    return members


def _take(tarball: Tarball, member: tarfile.TarInfo, members: dict[str, bytes]) -> None:
    """Read a member if it is one of the three."""
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        raise NemoFileError(f"a member is named {member.name[:200]!r}; the names in a .nemo file stay in its folder.")
    name = TOKENIZER if place.name.endswith(f"_{TOKENIZER}") else place.name
    if name not in MAX_BYTES:
        return
    if name in members:
        raise NemoFileError(f"it has two {name}; a .nemo file has one.")
    if member.size > MAX_BYTES[name]:
        raise NemoFileError(f"its {name} is {member.size:,} bytes; the limit is {MAX_BYTES[name]:,}.")
    with tarball.content(member) as content:
        members[name] = content.read()


def load_weights(content: bytes) -> dict[str, Tensor]:
    """Tensors by NeMo's names; no code in the file is run.

    Raises:
        NemoFileError: the file holds something other than named tensors, or unpacks to more than the limit.
        DamagedNemoFileError: it cannot be read.
    """
    try:
        _check_unpacked(content)
        held = load_saved(io.BytesIO(content))
    except NemoFileError:
        raise
    except UnsafeFileError as error:
        raise NemoFileError(f"its {WEIGHTS} {error}") from error
    except Exception as error:  # torch documents none; seen: RuntimeError, UnpicklingError, EOFError, KeyError
        what = "" if isinstance(error, pickle.UnpicklingError) else f" {str(error).strip()}".partition("\n")[0]
        raise DamagedNemoFileError(f"its {WEIGHTS} cannot be read ({type(error).__name__}{what}). "
                                   "Download it again.") from error
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]  # a Lightning checkpoint
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise NemoFileError(f"its {WEIGHTS} cannot be read: it holds {type(held).__name__}, not weights by name.")
    prefix = next((prefix for prefix in _PREFIXES if prefix + _A_WEIGHT in held), "")
    weights = {name.removeprefix(prefix): tensor for name, tensor in held.items()}
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise NemoFileError(f"its {WEIGHTS} cannot be read: {name!r} is not a plain tensor.")
    return weights


def _check_unpacked(content: bytes) -> None:
    """PyTorch does not compress; a compressed file can unpack to a thousand times its size."""
    if not zipfile.is_zipfile(io.BytesIO(content)):  # PyTorch's format before 1.6
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        num_bytes = sum(entry.file_size for entry in archive.infolist())
    if num_bytes > MAX_BYTES[WEIGHTS]:
        raise NemoFileError(f"its {WEIGHTS} unpacks to {num_bytes:,} bytes; the limit is {MAX_BYTES[WEIGHTS]:,}.")
