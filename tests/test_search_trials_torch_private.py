"""What is used of PyTorch beside its documentation, and what broke where PyTorch moves it."""

import pytest
import torch

from search.trials.torch_private import collect_garbage_from

pytestmark = pytest.mark.timeout(60)


def test_allocator_is_told_in_words_that_it_knows() -> None:
    assert hasattr(torch._C, "_accelerator_setAllocatorSettings"), "trials that share a GPU would fill it up"
    collect_garbage_from(0.25)
    with pytest.raises((RuntimeError, ValueError)):
        collect_garbage_from(2.0)  # it reads what it is told
