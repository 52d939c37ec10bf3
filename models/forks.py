"""Make a process safe to fork after a model was used: PyTorch's threads are not copied."""

import functools
import os

import torch


@functools.cache
def prepare_forks() -> None:
    """Make every later fork of this process compute in one thread; with more it would wait for them forever."""
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
