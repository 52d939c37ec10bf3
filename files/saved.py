"""Open files of torch.save without running code in them."""

import io
import os
import pickle
import re
from typing import Any

import torch

_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")  # in PyTorch's message


class UnsafeFileError(ValueError):
    """A file that holds more than tensors and plain values; opening it would run its author's code."""


def load_saved(file: str | os.PathLike[str] | io.BytesIO) -> Any:
    """Load tensors and plain values that `torch.save` wrote, onto the CPU.

    Raises:
        UnsafeFileError: the file holds anything else. Other errors are PyTorch's own, of any type.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not is_refused(error):
            raise
        raise UnsafeFileError(f"{'' if isinstance(file, io.BytesIO) else f'{file}: '}{why_refused(error)}") from error


def is_refused(error: pickle.UnpicklingError) -> bool:
    """Whether PyTorch refused the content, rather than failing to read it."""
    return _REFUSED.search(str(error)) is not None


def why_refused(error: pickle.UnpicklingError) -> str:
    """PyTorch's reason in one line, without its advice to run the file anyway."""
    match = _REFUSED.search(str(error))
    return (f"holds more than tensors ({match[1] if match else 'unknown'}), which could run its author's code on "
            "opening. It is refused.")
