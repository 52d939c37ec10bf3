"""The processes of a study: which are its trials', what memory they hold, and when a trial's CPUs are free again."""

import os
import threading
import time
from pathlib import Path

import ray

LOOK_EVERY_S = 0.1


class Observer(threading.Thread):
    """Looks at the free CPUs and at the memory of the trials' processes, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.free: list[tuple[float, float]] = []
        self.trial_bytes = 0
        self._others = trial_processes()  # Ray's agents have names of the same kind
        self._ended = threading.Event()

    def run(self) -> None:
        """Until the end."""
        while not self._ended.wait(LOOK_EVERY_S):
            self.free.append((time.time(), ray.available_resources().get("CPU", 0.0)))
            self.trial_bytes = max(self.trial_bytes, sum(map(pss_bytes, trial_processes() - self._others)))

    def end(self) -> None:
        """Stop observing."""
        self._ended.set()
        self.join()

    def freed_at(self, since: float, cpus: float) -> float | None:
        """When all CPUs were free; None where they never were."""
        return next((at for at, free in self.free if at >= since and free >= cpus - 1e-6), None)


def trial_processes() -> set[int]:
    """Ray's processes that belong to this one and hold an actor."""
    return {pid for pid in family(os.getpid()) if (name := title(pid)).startswith("ray::") and "IDLE" not in name}


def family(parent: int) -> set[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if text := _read(path):
            children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, waiting = set(), [parent]
    while waiting:
        found.add(waiting[-1])
        waiting.extend(children.get(waiting.pop(), []))
    return found


def title(pid: int) -> str:
    """What a process calls itself."""
    return _read(Path(f"/proc/{pid}/cmdline"))


def pss_bytes(pid: int) -> int:
    """Memory of a process, with shared pages divided among their users; 0 for one that has ended."""
    rows = dict(line.split()[:2] for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()[1:])
    return 1024 * int(rows.get("Pss:", 0))


def mapped_bytes(pid: int, folder: str) -> int:
    """Memory of a process that maps files of `folder`, with shared pages divided among their users."""
    total, is_inside = 0, False
    for line in _read(Path(f"/proc/{pid}/smaps")).splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # a mapping's addresses; its file comes last
            is_inside = folder in line
        elif name == "Pss:" and is_inside:
            total += 1024 * int(values[0])
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended
        return ""
