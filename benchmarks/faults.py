"""What faults cost a study: each kind of fault again and again, at random moments, on real studies of a tiny training.

    python benchmarks/faults.py                                       # every kind twenty times: an hour on two cores
    python benchmarks/faults.py --faults actor node --times 3         # two kinds, three times each

Each study trains the narrow network on a few synthetic clips, two trials at a time. Faults of a kind share a study as
long as it lasts, and more studies follow until there were as many faults as requested. Every study is then checked:
each trial once, no epoch lost or trained twice, stops only where the rungs say so, the best as good as it was. Run it
where no other Ray runs; it kills only processes of its own studies.
"""

import argparse
import contextlib
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from intact import best_of, complaints, rung_complaints, trial_complaints
from processes import family
from victims import KINDS, Fault, FaultError
from watched_study import Ledger, Plan, Study, kill, started, wait_for

from corpora.synthetic import write_synthetic

NUM_UTTERANCES = {"train": 96, "dev": 8, "test": 2}

STUDY_LIMIT_S = 600.0
"""A study without an epoch for this long hangs."""

RECOVERY_LIMIT_S = 90.0

ERROR = re.compile(r"error:|[\w.]*(Error|Exception)\b")
"""Begins the line that says what went wrong."""


@dataclass
class Struck:
    """One fault."""

    at: float
    trials: dict[str, int]
    """Epochs that each trial it hit had recorded."""
    lost_s: dict[str, float] = field(default_factory=dict)
    """For each trial that resumed: seconds from its last checkpoint until it trained again."""


@dataclass
class Row:
    """What the faults of a kind did."""

    fault: str
    times: int = 0
    studies: int = 0
    trials: int = 0
    trials_lost: int = 0
    epochs_repeated: int = 0
    epochs_cut_off: int = 0
    lost_s: list[float] = field(default_factory=list)
    """For each fault, of the trial that lost most."""
    wrong: list[str] = field(default_factory=list)
    left_out: str | None = None


def prepare(folder: Path) -> Path:
    """A tiny corpus, synthesised once."""
    return write_synthetic(folder / "corpus", "es", NUM_UTTERANCES, 0)


def measure(kind: str, times: int, folder: Path, seed: int, trials: int | None = None, epochs: int = 27) -> Row:
    """Cause a kind of fault this many times, in as many studies as needed."""
    fault, row = KINDS[kind](Random(f"{seed} {kind}")), Row(kind)
    if reason := fault.why_not():
        row.left_out = reason
        return row
    while row.times < times and row.studies < times:
        name = f"{kind}-{row.studies}"
        plan = Plan(out=folder / name, corpus=prepare(folder), cache=folder / "cache", log=folder / f"{name}.log",
                    trials=trials or times + 4, epochs=epochs)
        try:
            with fault.around(plan) as placed:
                run_study(fault, placed, times - row.times, row)
        except FaultError as error:
            row.left_out = str(error)
            return row
        row.studies += 1
    return row


def run_study(fault: Fault, plan: Plan, times: int, row: Row) -> None:
    """One study with at most this many faults, and its outcome."""
    study, struck, wrong = Study(plan), list[Struck](), list[str]()
    study.start()
    try:
        while len(struck) < times and await_moment(fault, study, struck):
            best = study.ledger.best()
            try:
                trials = fault.strike(study)
            except FaultError as error:
                trials, wrong = set(), [*wrong, str(error)]
            if trials is not None:
                study.ledger.look()
                struck.append(Struck(time.time(), {trial: study.ledger.count(trial) for trial in trials}))
                print(f"{row.fault} {row.times + len(struck)}: trials {', '.join(sorted(trials)) or 'none'}, best so "
                      f"far {best:.1%}", file=sys.stderr, flush=True)
            if fault.resumes:
                end(study)
                fault.after(study)
                study.start()
        wrong += finish(study)
    finally:
        end(study)
        study.ledger.end()
    wrong += look_back(fault, study, struck, row)
    row.wrong += [f"{plan.log.stem}: {what}" for what in wrong]


def await_moment(fault: Fault, study: Study, struck: Sequence[Struck]) -> bool:
    """Wait until the trials of the last fault have resumed, then for a random time; False if the study ended first."""
    hit = struck[-1].trials if struck else {}

    def gone_on() -> bool:
        return study.code is not None or all(
            study.ledger.count(trial) > count or study.state(trial) not in (None, "RUNNING")
            for trial, count in hit.items())

    def trains() -> bool:
        return study.code is not None or bool(fault.running(study)) and study.printed

    if fault.starting_s and len(struck) % 3 == 2:
        since, (least, most) = study.started_at, fault.starting_s
    else:
        wait_for(gone_on, RECOVERY_LIMIT_S)
        wait_for(trains, RECOVERY_LIMIT_S)
        since, (least, most) = time.time(), fault.trained_s
    moment = since + fault.random.uniform(least, most)
    wait_for(lambda: time.time() >= moment or study.code is not None, most + 1)
    return study.code is None


def finish(study: Study) -> list[str]:
    """Wait for a study's end while it progresses; one that a fault ended wrongly is resumed once."""
    wrong: list[str] = []
    while True:
        while not study.wait(limit_s=STUDY_LIMIT_S):
            newest = max((rows[-1].at for rows in list(study.ledger.epochs.values()) if rows), default=0.0)
            if time.time() - max(newest, study.started_at) > STUDY_LIMIT_S:
                return [*wrong, f"no epoch for {STUDY_LIMIT_S:.0f} s; it was killed"]
        if study.code == 0:
            return wrong
        said = [line for line in study.text.splitlines() if ERROR.match(line)] or study.text.splitlines()
        wrong.append(f"a driver ended with code {study.code}: {said[-1][:200] if said else 'no word'}")
        if len(wrong) > 1:
            return wrong
        study.start()


def end(study: Study) -> None:
    """Kill what is left of a study's processes, all of them descendants of its driver."""
    if study.code is None:
        left = {(pid, at) for pid in family(study.pid) if (at := started(pid))}
        for pid, at in left:
            if started(pid) == at:
                kill(pid)
        study.wait(limit_s=30)


def look_back(fault: Fault, study: Study, struck: Sequence[Struck], row: Row) -> list[str]:
    """Add a study's figures to the row; returns what is wrong with it."""
    folder, ledger = study.plan.out, study.ledger
    for one in struck:
        one.lost_s = lost_seconds(one, ledger)
    wrong = complaints(folder, fault.may_fail)
    row.times += len(struck)
    row.trials += study.plan.trials
    row.trials_lost += study.plan.trials - sum(not lacks for lacks in trial_complaints(folder, fault.may_fail).values())
    row.epochs_repeated += len(ledger.complaints)
    row.epochs_cut_off += sum(len(one.lost_s) for one in struck)
    row.lost_s += [max(one.lost_s.values()) for one in struck if one.lost_s]
    if best_of(folder) > ledger.best():
        wrong.append(f"the best is {best_of(folder):.1%}, and {ledger.best():.1%} had been recorded")
    return [*wrong, *ledger.complaints, *rung_complaints(folder, study.history)]


def lost_seconds(struck: Struck, ledger: Ledger) -> dict[str, float]:
    """Of each trial that went on: from its last recorded epoch (or the fault, where it had none) to its training."""
    found = {}
    for trial, count in struck.trials.items():
        rows = ledger.epochs.get(trial, [])
        if len(rows) > count:
            before = rows[count - 1] if count else None
            busy_s = rows[count].values["train_s"] - (before.values["train_s"] if before else 0.0)
            found[trial] = rows[count].at - busy_s - (before.at if before else struck.at)
    return found


# --- the table ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown: a row for each kind of fault."""
    yield ("| fault | times | studies | trials | trials lost | epochs repeated | epochs cut off | seconds lost, median "
           "(most) |")
    yield "|---" * 8 + "|"
    for row in rows:
        if row.left_out:
            yield f"| {row.fault} | left out: {row.left_out} | | | | | | |"
            continue
        seconds = f"{statistics.median(row.lost_s):.1f} ({max(row.lost_s):.1f})" if row.lost_s else "none"
        yield (f"| {row.fault} | {row.times} | {row.studies} | {row.trials} | {row.trials_lost} | "
               f"{row.epochs_repeated} | {row.epochs_cut_off} | {seconds} |")
    for row in rows:
        for what in row.wrong:
            yield f"\n{row.fault}: {what}"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how often each fault comes (default: %(default)s)")
    parser.add_argument("--faults", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    parser.add_argument("--out", type=Path, help="keep the studies and what they printed in this folder")
    found = parser.parse_args(given)
    if found.times < 1:
        parser.error(f"--times is {found.times}; it must be at least 1.")
    return found


def main() -> int:
    """Measure, print; 1 where a study was not whole."""
    given = arguments()
    with contextlib.ExitStack() as stack:
        folder = given.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cuarzo-faults-")))
        rows = []
        for kind in given.faults:
            for old in folder.glob(f"{kind}-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            rows.append(measure(kind, given.times, folder.resolve(), given.seed))
            print("\n".join(table(rows[-1:])), file=sys.stderr, flush=True)
            if given.json:
                given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    print("\n".join(table(rows)))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
