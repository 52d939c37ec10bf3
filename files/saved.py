"""Files of torch.save, opened so that nothing that they say is run."""

import io
import os
import pickle
import re
from typing import Any

import torch

_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")  # in what PyTorch says


class UnsafeFileError(ValueError):
    """A file that holds more than tensors and plain values: to open it would run its maker's code."""


def load_saved(file: str | os.PathLike[str] | io.BytesIO) -> Any:
    """What `torch.save` wrote of tensors and plain values, on the CPU.

    Raises:
        UnsafeFileError: it holds anything else. Other errors are PyTorch's own, of any type.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not is_refused(error):
            raise
        raise UnsafeFileError(f"{'' if isinstance(file, io.BytesIO) else f'{file}: '}{why_refused(error)}") from error


def is_refused(error: pickle.UnpicklingError) -> bool:
    """Whether PyTorch refuses what is written, rather than not being able to read it."""
    return _REFUSED.search(str(error)) is not None


def why_refused(error: pickle.UnpicklingError) -> str:
    """In one line, without PyTorch's advice to run it all the same."""
    match = _REFUSED.search(str(error))
    return (f"holds more than tensors ({match[1] if match else 'unknown'}), which could run its maker's code as it is "
            "opened. It is refused.")
