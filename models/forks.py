"""What a process that was forked after a model was used can still do: PyTorch's threads are not copied with it."""

import functools
import os

import torch


@functools.cache
def prepare_forks() -> None:
    """Have every later fork of this process compute in one thread; with more it would wait for ever for the others."""
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
