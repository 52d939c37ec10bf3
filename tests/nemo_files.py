"""`.nemo` files taken apart, changed and put together again, as tests need them."""

import copy
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"


def members_of(path: Path) -> dict[str, bytes]:
    """The content of each file in it, by name."""
    with tarfile.open(path) as archive:
        held = {member.name.removeprefix("./"): archive.extractfile(member) for member in archive}
        return {name: content.read() for name, content in held.items() if content is not None}


def pack(path: Path, members: Mapping[str, bytes], *, mode: Any = "w") -> Path:
    """Write members, in their order."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def change_config(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the configuration in place."""
    members = members_of(path)
    config = yaml.safe_load(members[CONFIG])
    change(config)
    pack(path, members | {CONFIG: yaml.safe_dump(config).encode()})


def change_weights(path: Path, change: Callable[[dict[str, Any]], object], *, is_zip: bool = True) -> None:
    """Change the weights in place, or put what `change` gives into theirs."""
    members, content = members_of(path), io.BytesIO()
    weights = torch.load(io.BytesIO(members[WEIGHTS]), weights_only=True)
    torch.save(change(weights) or weights, content, _use_new_zipfile_serialization=is_zip)
    pack(path, members | {WEIGHTS: content.getvalue()})


def as_of_2020(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as NeMo 1.0.0b1 wrote it: {cls, params} in each section, labels in them, and no version."""
    old: dict[str, Any] = {}
    for name, held in copy.deepcopy(config).items():
        if isinstance(held, dict):
            target = held.pop("_target_", None)
            held = ({"cls": target} if target else {}) | {"params": held}
        if name not in ("labels", "nemo_version", "cuarzo", "decoding"):
            old[name] = held
    return old
