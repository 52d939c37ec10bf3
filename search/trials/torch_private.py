"""Every use of undocumented parts of PyTorch (2.14).

`tests/test_search_trials_torch_private.py` reports what a new version of PyTorch breaks.
"""

import torch


def collect_garbage_from(share: float) -> None:
    """Make the allocator free cached memory of a GPU once it holds more than this share of it.

    PYTORCH_ALLOC_CONF can set this too, but is read when PyTorch is loaded, before the GPU is known.
    """
    torch._C._accelerator_setAllocatorSettings(f"garbage_collection_threshold:{share:.4f}")
