"""All that is used of PyTorch without being in its documentation (PyTorch 2.14).

`tests/test_search_trials_torch_private.py` says what broke where a new version of PyTorch moves it.
"""

import torch


def collect_garbage_from(share: float) -> None:
    """Have the allocator give back unused memory of a GPU once more than this share of it is held.

    PYTORCH_ALLOC_CONF says the same, but is read as PyTorch is loaded, when nobody knows the GPU yet.
    """
    torch._C._accelerator_setAllocatorSettings(f"garbage_collection_threshold:{share:.4f}")
