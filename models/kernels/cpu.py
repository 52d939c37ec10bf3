"""The kernels for CPUs in C++: `cpu.cpp`, compiled on first use and cached in a folder of the user's."""

import ctypes
import errno
import functools
import logging
import os
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from models.kernels import compiled, plain
from models.padding import Padding

log = logging.getLogger(__name__)

SWITCH = "CUARZO_CPU_KERNELS"
"""Set this environment variable to 0 to turn these kernels off."""
PRECISIONS = (torch.float32, torch.bfloat16)
"""What the kernels read and write; sums are in float32 or better."""

_SOURCE = Path(__file__).with_name("cpu.cpp")
_FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-fopenmp", "-shared", "-fPIC")

_SHAPE = [ctypes.c_int64] * 7
_POINTER = ctypes.c_void_p
_SIGNATURES = {
    "cuarzo_depthwise": [_POINTER, _POINTER, _POINTER, *_SHAPE, _POINTER],
    "cuarzo_depthwise_weight_gradient": [_POINTER, _POINTER, _POINTER, *_SHAPE, _POINTER],
    "cuarzo_statistics": [_POINTER, *_SHAPE[:2], _POINTER, _POINTER],
    "cuarzo_scale_shift_rectify": [*[_POINTER] * 5, *_SHAPE[:3], ctypes.c_int, _POINTER],
    "cuarzo_drop": [_POINTER, *_SHAPE[:3], ctypes.c_float, ctypes.c_int64],
    "cuarzo_batchnorm_backward": [*[_POINTER] * 6, *_SHAPE[:2], *[_POINTER] * 4],
}
"""Arguments of each function between the first, the precision, and the last, the number of threads."""


def is_available() -> bool:
    """Whether the kernels are compiled, compiling them if needed; if that fails, one log line says why."""
    return _library() is not None


def depthwise(frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int) -> Tensor:
    """As `plain.depthwise`."""
    after = padding.strided(stride)
    output = frames.new_empty(len(frames), after.num_frames, frames.shape[-1])
    _call("cuarzo_depthwise", frames, weight[:, 0].T.float().contiguous(), padding.lengths,
          *_shape(frames, after, weight, stride, dilation), output)
    return output


def depthwise_frames_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """As `plain.depthwise_frames_gradient`."""
    if stride > 1:  # only the first layer has one, and the gradient of the features is not needed
        return plain.depthwise_frames_gradient(gradient, frames, weight, padding, stride, dilation)
    return depthwise(gradient, weight.flip(-1), padding, 1, dilation)


def depthwise_weight_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """As `plain.depthwise_weight_gradient`."""
    channels, _, kernel = weight.shape
    total = torch.empty(kernel, channels)
    _call("cuarzo_depthwise_weight_gradient", frames, gradient.contiguous(), padding.lengths,
          *_shape(frames, padding.strided(stride), weight, stride, dilation), total)
    return total.T.unsqueeze(1).to(weight.dtype)


def statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """As `plain.statistics`: each chunk of 64 frames about its own mean, the chunks joined in double."""
    mean, variance = torch.empty(frames.shape[-1]), torch.empty(frames.shape[-1])
    _call("cuarzo_statistics", frames, frames.shape[0] * frames.shape[1], frames.shape[2], mean, variance)
    return mean, variance


def normalise(frames: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, padding: Padding,
              activate: bool) -> Tensor:
    """As `plain.normalise`, in one pass over the frames."""
    output = torch.empty_like(frames)
    _call("cuarzo_scale_shift_rectify", frames, residual, scale, shift, padding.lengths, *frames.shape, activate,
          output)
    return output


def rectify_(frames: Tensor, residual: Tensor | None, padding: Padding) -> Tensor:
    """As `plain.rectify_`, in one pass over the frames."""
    _call("cuarzo_scale_shift_rectify", frames, residual, None, None, padding.lengths, *frames.shape, True, frames)
    return frames


def drop(frames: Tensor, share: float) -> Tensor:
    """As `plain.drop`, in the memory of `frames` and without a mask."""
    seed = int(torch.randint(2**63 - 1, ()))
    _call("cuarzo_drop", frames, frames.shape[0] * frames.shape[1], frames.shape[2], int(share * 2**32),
          1 / (1 - share), seed)
    return frames


def batchnorm_backward(gradient: Tensor, output: Tensor | None, frames: Tensor, weight: Tensor, mean: Tensor,
                       inverse_std: Tensor, needs_residual: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `plain.batchnorm_backward`, in two passes over the frames."""
    gradient, frames_gradient = gradient.contiguous(), torch.empty_like(frames)
    weight_gradient, bias_gradient = torch.empty_like(mean), torch.empty_like(mean)
    masked = torch.empty_like(frames) if needs_residual and output is not None else None
    _call("cuarzo_batchnorm_backward", gradient, output, frames, weight, mean, inverse_std,
          frames.shape[0] * frames.shape[1], frames.shape[2], frames_gradient, weight_gradient, bias_gradient, masked)
    residual_gradient = (gradient if masked is None else masked) if needs_residual else None
    return frames_gradient, weight_gradient, bias_gradient, residual_gradient


def _shape(frames: Tensor, after: Padding, weight: Tensor, stride: int, dilation: int) -> tuple[int, ...]:
    batch, num_frames, channels = frames.shape
    return batch, num_frames, after.num_frames, channels, weight.shape[-1], stride, dilation


def _call(name: str, frames: Tensor, *arguments: Tensor | float | None) -> None:
    """Call a function of the library with the pointers of contiguous tensors, which live until it returns."""
    library = _library()
    assert library is not None
    pointers: list[float | None] = []
    for argument in (frames, *arguments):
        if isinstance(argument, Tensor):
            assert argument.is_contiguous(), f"{name} was given a tensor of strides {argument.stride()}"
            pointers.append(argument.data_ptr())
        else:
            pointers.append(argument)
    getattr(library, name)(frames.dtype == torch.bfloat16, *pointers, torch.get_num_threads())


@functools.cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        library = compiled.load(_SOURCE, _FLAGS)
    except compiled.NoPlaceError as error:
        log.warning("the CPU kernels cannot be kept, so training is 2 times slower or worse: %s %s=0 silences this.",
                    error, SWITCH)
        return None
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        log.warning("the CPU kernels cannot be compiled or loaded, so training is 2 times slower or worse: %s. To fix "
                    "it: %s. %s=0 silences this.", detail.strip()[-500:], _fix(error, detail), SWITCH)
        return None
    for name, between in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_int, *between, ctypes.c_int], None
    return library


def _fix(error: Exception, detail: str) -> str:
    """What to do about an error."""
    if "No space left" in detail or "quota exceeded" in detail:
        return (f"make room in {library_folder()} and in {os.environ.get('TMPDIR') or '/tmp'}, or set CUARZO_CACHE and "
                "TMPDIR")
    is_of_folder = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
    if is_of_folder or "failed to map segment" in detail:  # the second: a disk mounted noexec
        return f"set CUARZO_CACHE to a folder that can be written and run from, instead of {library_folder().parent}"
    return "install a C++ compiler with OpenMP (g++)"


def library_folder() -> Path:
    """Where compiled libraries are kept; a user without a home has / as home."""
    cache = os.path.expanduser(os.environ.get("CUARZO_CACHE") or "~/.cache/cuarzo")
    return Path(cache.replace("~", "", 1) if cache.startswith("~/") else cache).absolute() / "kernels"
