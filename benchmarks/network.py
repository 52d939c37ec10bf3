"""How long QuartzNet takes, compared with the same network in eager `Conv1d` and, if it is installed, NeMo's own.

    python benchmarks/network.py                # the table of benchmarks/README.md: 5 minutes on two cores
    python benchmarks/network.py --device cuda --sizes 32x16 --precisions bf16 --work training

All contestants have the same weights, are checked to give the same results, and take turns in one run.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import FRAMES_PER_S, NUM_LABELS, PRECISIONS, floor_bytes, machine, multiplications, seconds
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from yardstick import Yardstick

from models.nemo import nemo_names, nemo_row
from models.quartznet import AcousticModel, QuartzNetConfig, ctc_loss, folded, named_network

LETTERS_PER_S = 12
WORKS = ("forward", "training", "inference")
AGREEMENT = 1e-3
"""How far log-probabilities may differ in float32."""

Network = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Contestant:
    """A network for training, and its form for inference in each precision."""

    name: str
    trained: nn.Module
    inferred: Callable[[torch.dtype], Network]


@dataclass(frozen=True)
class Batch:
    """Random features of full length, and letters to align with them."""

    features: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor

    @classmethod
    def of(cls, clips: int, seconds: int, num_mels: int, device: str) -> "Batch":
        """`clips` of `seconds` each."""
        frames, letters = seconds * FRAMES_PER_S, seconds * LETTERS_PER_S
        tensors = (torch.randn(clips, num_mels, frames), torch.full((clips,), frames),
                   torch.randint(0, NUM_LABELS - 1, (clips, letters)), torch.full((clips,), letters))
        return cls(*(tensor.to(device) for tensor in tensors))


# --- the contestants ------------------------------------------------------------------------------------------------


class Nemo(nn.Module):
    """NeMo's own encoder and decoder with the weights of `model`; raises ImportError if NeMo is not installed."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        from nemo.collections.asr.modules import ConvASRDecoder, ConvASREncoder

        config = model.encoder.config
        self.encoder = ConvASREncoder(jasper=[nemo_row(block) for block in config.blocks], activation="relu",
                                      feat_in=config.num_mels, conv_mask=True)
        self.decoder = ConvASRDecoder(feat_in=config.num_channels, num_classes=NUM_LABELS - 1,
                                      vocabulary=[chr(97 + i) for i in range(NUM_LABELS - 1)])
        ours, theirs = model.state_dict(), self.state_dict()
        for name, nemos in nemo_names(config):
            theirs[nemos].copy_(ours[name].reshape(theirs[nemos].shape))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, mels, frames), (batch,) to log-probabilities (batch, frames', labels), (batch,)."""
        encoded, lengths = self.encoder(audio_signal=features, length=lengths)
        return self.decoder(encoder_output=encoded), lengths


def contestants(config: QuartzNetConfig, device: str, only: str | None = None) -> list[Contestant]:
    """The yardstick, Cuarzo and, where installed, NeMo, with the same weights; or `only` one of them."""
    model = AcousticModel(config, NUM_LABELS).to(device)
    entrants = [Contestant("cuarzo", model, lambda dtype: folded(model, dtype))]
    for name, build in (("nemo", Nemo), ("yardstick", Yardstick.with_weights_of)):
        if only not in (None, name):
            continue
        try:
            module = build(model).to(device)
        except ImportError:
            print("NeMo is not installed: it is left out.", file=sys.stderr)
            continue
        entrants.insert(0, Contestant(name, module, lambda _, module=module: module.eval()))
    return [entrant for entrant in entrants if only in (None, entrant.name)]


def set_dropout(entrants: list[Contestant], share: float) -> None:
    """Set the dropout rate after every ReLU in training."""
    for entrant in entrants:
        if isinstance(entrant.trained, AcousticModel):
            entrant.trained.encoder.set_dropout(share)
        for module in entrant.trained.modules():
            if isinstance(module, nn.Dropout):
                module.p = share


def check_equal(entrants: list[Contestant], config: QuartzNetConfig, device: str) -> None:
    """Log-probabilities and the loss's gradient in float32 must agree, or times mean nothing."""
    batch = Batch.of(2, 4, config.num_mels, device)
    batch.lengths[1] -= 150
    batch.target_lengths[1] //= 2
    results = []
    for entrant in entrants:
        with torch.no_grad():
            log_probs, lengths = entrant.inferred(torch.float32)(batch.features, batch.lengths)
        valid = torch.arange(log_probs.shape[1], device=device) < lengths[:, None]
        train(entrant.trained, batch, torch.float32)
        norms = torch.stack([parameter.grad.norm() for parameter in entrant.trained.parameters()
                             if parameter.grad is not None])
        entrant.trained.zero_grad()
        results.append((log_probs[valid], norms.sort().values))
    for entrant, (log_probs, norms) in zip(entrants[1:], results[1:], strict=True):
        apart = (log_probs - results[0][0]).abs().max().item()
        largest = results[0][1].max().item()  # anything far smaller is rounding
        gradient = ((norms - results[0][1]).abs() / results[0][1].clamp(min=0.01 * largest)).max().item()
        print(f"{entrant.name} and {entrants[0].name}: log-probabilities within {apart:.1e}, gradient norms within "
              f"{100 * gradient:.2f} %")
        if not (apart < AGREEMENT and gradient < 0.02):
            raise SystemExit("the contestants are not the same network: nothing is timed.")


# --- the work -------------------------------------------------------------------------------------------------------


def loss_of(module: nn.Module, batch: Batch, dtype: torch.dtype) -> Tensor:
    """The mean CTC loss in training, under autocast for bfloat16."""
    module.train()
    with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        log_probs, lengths = module(batch.features, batch.lengths)
        return ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths).mean()


def train(module: nn.Module, batch: Batch, dtype: torch.dtype) -> None:
    """Forward, loss, backward."""
    torch.autograd.backward(loss_of(module, batch, dtype))


def jobs(work: str, entrants: list[Contestant], batch: Batch, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """What each contestant does in one turn."""
    if work == "forward":
        return {e.name: lambda e=e: loss_of(e.trained, batch, dtype) for e in entrants}
    if work == "training":
        optimizers = {e.name: torch.optim.AdamW(e.trained.parameters(), lr=1e-5, foreach=True) for e in entrants}

        def step(entrant: Contestant) -> None:
            optimizers[entrant.name].zero_grad()
            train(entrant.trained, batch, dtype)
            optimizers[entrant.name].step()

        return {e.name: lambda e=e: step(e) for e in entrants}

    def infer(network: Network) -> None:
        device = batch.features.device.type
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            network(batch.features, batch.lengths)

    networks = {e.name: e.inferred(dtype) for e in entrants}
    return {name: lambda network=network: infer(network) for name, network in networks.items()}


def medians(turns: dict[str, Callable[[], Any]], repeat: int, device: str, tick: Callable[[], None]
            ) -> dict[str, float]:
    """Median seconds of each contestant; all run once untimed, then take turns."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(repeat + 1):
        for name, job in turns.items():
            times[name].append(seconds(job, device))
            tick()
        if turn == 0:
            times = {name: [] for name in turns}
    return {name: statistics.median(values) for name, values in times.items()}


# --- memory ---------------------------------------------------------------------------------------------------------


def held_bytes(module: nn.Module, batch: Batch, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps from the forward to the backward pass, without parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.autograd.backward(loss_of(module, batch, dtype))
    return sum(held.values())


def report_memory(given: argparse.Namespace) -> None:
    """Print, for one contestant, what a training step holds and the process's peak: the other half of `memory`."""
    name, precision = given.memory_of
    config = named_network(given.network)
    (entrant,) = entrants = contestants(config, given.device, name)
    set_dropout(entrants, given.dropout)
    clips, length = _size(given.sizes[-1])
    batch = Batch.of(clips, length, config.num_mels, given.device)
    held = held_bytes(entrant.trained, batch, PRECISIONS[precision])
    if given.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"held_gb": held / 1e9, "peak_gb": peak / 1e9}))


def memory(given: argparse.Namespace, names: list[str]) -> Iterator[dict[str, Any]]:
    """Memory of a training step of the last size, each contestant in its own process."""
    for precision in given.precisions:
        for name in names:
            command = [sys.executable, __file__, "--memory-of", name, precision, "--network", given.network, "--sizes",
                       given.sizes[-1], "--device", given.device, "--threads", str(given.threads), "--dropout",
                       str(given.dropout)]
            child = subprocess.run(command, capture_output=True, text=True, check=True)
            yield {"contestant": name, "precision": precision, "size": given.sizes[-1],
                   **json.loads(child.stdout.splitlines()[-1])}


# --- the tables -----------------------------------------------------------------------------------------------------


def measure(given: argparse.Namespace, entrants: list[Contestant], config: QuartzNetConfig) -> list[dict[str, Any]]:
    """Seconds of each contestant for each kind of work, size and precision."""
    rows = []
    count = len(given.work) * len(given.sizes) * len(given.precisions) * len(entrants) * (given.repeat + 1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=count)
        for work in given.work:
            for size in given.sizes:
                clips, length = _size(size)
                batch = Batch.of(clips, length, config.num_mels, given.device)
                for precision in given.precisions:
                    progress.update(task, description=f"{work} {size} {precision}")
                    turns = jobs(work, entrants, batch, PRECISIONS[precision])
                    times = medians(turns, given.repeat, given.device, lambda: progress.advance(task))
                    operations = multiplications(config, clips * length) * (3 if work == "training" else 1)
                    rows.append({"work": work, "size": size, "precision": precision, "seconds": times,
                                 "gflops": operations / times["cuarzo"] / 1e9,
                                 "times_real_time": clips * length / times["cuarzo"]})
    return rows


def table(rows: list[dict[str, Any]], peaks: dict[str, float]) -> Iterator[str]:
    """Markdown: seconds of each, and derived figures."""
    names = list(rows[0]["seconds"])
    yield (f"| work | clips x s | numbers | {' | '.join(f'{name}, s' for name in names)} | times faster | "
           "than float32 | GFLOP/s | of the peak | times real time |")
    yield "|---" * (len(names) + 8) + "|"
    exact = {(row["work"], row["size"]): row["seconds"]["yardstick"] for row in rows if row["precision"] == "float32"}
    for row in rows:
        times = row["seconds"]
        float32 = exact.get((row["work"], row["size"]))
        against = f"{float32 / times['cuarzo']:.1f}" if float32 else ""
        yield (f"| {row['work']} | {row['size']} | {row['precision']} | "
               f"{' | '.join(f'{times[name]:.3f}' for name in names)} | "
               f"{times['yardstick'] / times['cuarzo']:.1f} | {against} | {row['gflops']:.0f} | "
               f"{100 * row['gflops'] / peaks[row['precision']]:.0f} % | {row['times_real_time']:.0f} |")


def _size(text: str) -> tuple[int, int]:
    clips, _, length = text.partition("x")
    return int(clips), int(length)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="15x5", help="a published QuartzNet (default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", default=["1x10", "8x5", "16x10"], metavar="CLIPSxSECONDS")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--work", nargs="+", default=list(WORKS), choices=WORKS)
    parser.add_argument("--dropout", type=float, default=0.0, help="share dropped in training (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="timed turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.repeat < 1 or any(not _is_size(size) for size in given.sizes):
        parser.error("--repeat must be 1 or more, and a size is clips x seconds, as in 16x10.")
    if not 0 <= given.dropout < 1:
        parser.error("--dropout must be in [0, 1).")
    return given


def _is_size(text: str) -> bool:
    return all(part.isdigit() and int(part) > 0 for part in text.split("x")) and text.count("x") == 1


def main() -> None:
    """Check, measure, print."""
    given = arguments()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    torch.backends.cudnn.allow_tf32 = False  # a GPU's convolutions round float32 to ten bits otherwise
    if given.memory_of:
        report_memory(given)
        return
    config = named_network(given.network)
    here = machine(given.device)
    print(json.dumps(here))
    entrants = contestants(config, given.device)
    check_equal(entrants, config, given.device)
    set_dropout(entrants, given.dropout)
    rows = measure(given, entrants, config)
    print("\n".join(table(rows, here["peak_gflops"])))
    kept = []
    if "training" in given.work:
        kept = list(memory(given, [entrant.name for entrant in entrants]))
        for row in kept:
            print(f"{row['contestant']}, training {row['size']} in {row['precision']}: holds {row['held_gb']:.2f} GB "
                  f"of activations, peak of the process {row['peak_gb']:.2f} GB")
    if given.device == "cuda":
        for row in (row for row in rows if row["work"] == "training"):
            clips, length = _size(row["size"])
            floor = floor_bytes(config, clips * length, PRECISIONS[row["precision"]].itemsize) / here["copy_gb_per_s"]
            print(f"training {row['size']} {row['precision']}: memory alone would take {floor / 1e9:.4f} s, "
                  f"{100 * floor / 1e9 / row['seconds']['cuarzo']:.0f} % of the step")
    if given.json:
        given.json.write_text(json.dumps({**here, "rows": rows, "memory": kept}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
