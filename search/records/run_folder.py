"""RunFolder: a study's folder, its lock, its configuration and the paths in it."""

import contextlib
import os
import secrets
import socket
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, Timeout

from files.atomic import write_aside
from files.locks import NO_LOCKS_HERE, file_lock
from search.config import CORPUS_FIELDS, RUN_VERSION, ConfigError, ResolvedConfig, StudyConfig, load_config
from search.records import database
from search.records.fingerprints import Identity
from search.records.shell_words import command, quoted, resume_flag
from search.wording import counted
from spaces.typed import save_yaml

FIXED_FIELDS = (*CORPUS_FIELDS, "language", "source", "space", "max_epochs", "seed", "warm_start", "workers_per_trial",
                "grace_epochs", "reduction_factor", "min_duration_s", "max_duration_s", "max_infeasible_share")
"""Fields that cannot change on resume: results from before and after would not be comparable."""

WHY_KEPT = {"max_epochs": ", as warm-up and annealing are laid over all epochs"}
"""Reasons that are not obvious."""

TRAINING = "training.yaml"
"""The configuration of a production training; a study has no such file."""

PLACES = ("trials", "wandb", "best")
"""Folders that a user may have replaced by links to another disk."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of run, with the names that its own script uses."""

    name: str
    script: str
    own_names: Mapping[str, str]
    """Its own names for some of the study's fields."""
    anew: str
    """How to start over with another value of a fixed field; {run} is the folder and {flag} the flag."""

    def going_on(self, path: Path) -> str:
        """The command that resumes the run in a folder."""
        return f"python {self.script} {resume_flag(path)}"


STUDY = Kind(name="study", script="search/run.py", own_names={}, anew="start a new study with --out")
PRODUCTION = Kind(name="production training", script="search/train.py",
                  own_names={"max_epochs": "epochs", "workers_per_trial": "workers"},
                  anew="train anew: python search/train.py {run}/recipe.yaml {flag} --out ANOTHER")


def kind_of(path: Path) -> Kind | None:
    """The kind of run that a folder holds; None if it holds no trials."""
    return PRODUCTION if (path / TRAINING).exists() else STUDY if (path / "study.db").exists() else None


LOCK_PATIENCE_S = 2.0
"""A killed process holds its lock until the kernel has freed its memory, which took up to 0.4 s."""


@dataclass(frozen=True)
class RunFolder:
    """A study's folder; docs/run-folder.md lists what is in it."""

    path: Path
    config: ResolvedConfig

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    @property
    def unique_name(self) -> str:
        """The name, followed by an id that distinguishes the study from others of the same name on a shared server."""
        file = self.path / "id"
        return f"{self.name}-{file.read_text(encoding='utf-8')}" if file.exists() else self.name

    @property
    def trials(self) -> Path:
        """A folder for each trial."""
        return self.path / "trials"

    @property
    def reference(self) -> Path:
        """The reference texts that the study is scored against."""
        return self.path / "reference.parquet"

    @property
    def best(self) -> Path:
        """What the study delivers: recipe, model, card."""
        return self.path / "best"

    @classmethod
    def open(cls, config: StudyConfig, resume: bool, kind: Kind = STUDY) -> "RunFolder":
        """The folder of a new run, or of the run to resume; nothing is written.

        Raises:
            ConfigError: the folder holds another run, or no run to resume.
        """
        path = config.run_path()
        # A run that failed before its first trial has nothing to lose.
        held = kind_of(path)
        if held and not (resume and held is kind):
            raise ConfigError(f"{path}: this folder already holds a {held.name}. Resume it with "
                              f"{held.going_on(path)}, or name another folder with --out.")
        resolved = replace(config.resolved(), out=str(path),
                           warm_start=tuple(str(Path(p).expanduser().resolve()) for p in config.warm_start))
        if resume:
            _check_unchanged(load_config(path), resolved, path, kind)
        return cls(path, resolved)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside the block, no other process can run this study.

        The kernel releases the lock when the process ends, however it dies; Ray's processes do not inherit it.

        Raises:
            ConfigError: another process runs the study, its database is damaged, or the folder cannot be written.
        """
        file = self.path / "lock"
        lock = file_lock(file)
        with self._written():
            self.path.mkdir(parents=True, exist_ok=True)
            had_begun = has_begun(self.path)
            is_ours = _lock(lock)
        try:
            # While this process waited, another one may have started the study that it was about to start.
            if not is_ours or has_begun(self.path) != had_begun:
                holder = file.read_text(encoding="utf-8").strip() or "until just now"
                raise ConfigError(f"{self.path}: this study is running ({holder}). Wait until it ends, stop it there "
                                  "with Ctrl-C, or start another one with --out.")
            file.write_text(f"host {socket.gethostname()}, process {os.getpid()}\n", encoding="utf-8")
            try:
                remove_dead_links(self.path)  # left by a killed run
                check_database(self.path)
                yield
            finally:
                remove_dead_links(self.path)
                file.write_text("")
        finally:
            lock.release()

    def begin(self, made_of: Identity) -> None:
        """Save the configuration and what the study is made of.

        Raises:
            ConfigError: the folder's trials belong to a study of other content, or it cannot be written.
        """
        file = self.path / "made_of.json"
        if has_begun(self.path) and file.exists():
            Identity.load(file).check_same(made_of, self.config, self.path)
        with self._written():
            made_of.save(file)
            if not has_begun(self.path):
                write_aside(self.path / "id", secrets.token_hex(3).encode())
            lists = {name: list(getattr(self.config, name)) for name in (*CORPUS_FIELDS, "warm_start")}
            values = asdict(self.config) | lists
            save_yaml(self.path / "config.yaml", {"version": RUN_VERSION} | values)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror}). Make it writable, or name another "
                              "folder with --out.") from error


def remove_dead_links(run: Path) -> None:
    """Remove dangling links, and W&B's links out of the run's folder, which would dangle in a copy of it.

    `ray up` fails with a traceback at the first one in the folder that it copies to its nodes. The study's own folders
    that a user has replaced by links are kept: their disk may just not be mounted.
    """
    places = [Path(os.path.realpath(run / name)) for name in PLACES]
    wandb = places[PLACES.index("wandb")]
    for folder, folders, files in (found for top in {run, *places} for found in os.walk(top)):
        for link in (Path(folder, name) for name in (*folders, *files)):
            if not link.is_symlink() or (link.parent == run and link.name in PLACES):
                continue
            leads_out = wandb in link.parents and wandb not in Path(os.path.realpath(link)).parents
            if leads_out or not link.exists():
                with contextlib.suppress(OSError):
                    link.unlink()


def has_begun(path: Path) -> bool:
    """Whether the folder holds trials of a study, or a production training."""
    return kind_of(path) is not None


def _lock(lock: BaseFileLock) -> bool:
    """Acquire a lock; False if another process holds it. On a disk without locks, True."""
    try:
        lock.acquire(timeout=LOCK_PATIENCE_S)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        print(f"no locks on this disk ({error.strerror}): do not run a second process on this study", file=sys.stderr)
    return True


def check_database(folder: Path) -> None:
    """Refuse to resume a study whose `study.db` is damaged, or missing although there are trials.

    Raises:
        ConfigError: the database is damaged, missing or not accessible.
    """
    file = folder / "study.db"
    num_trials = len(list(folder.glob("trials/[0-9]*/record.json")))
    if not num_trials and not file.exists():
        return
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        raise ConfigError(f"{file}: this user has no right to read and write it. Change its rights.")
    try:
        with contextlib.closing(database.connect(file, "rw")) as connection:
            [(found,)] = connection.execute("PRAGMA quick_check(1)")
            if num_trials:  # SQLite takes a truncated file for an empty database
                kept = "SELECT number FROM trials JOIN studies USING (study_id) LIMIT 1"
                found = found if connection.execute(kept).fetchall() else "it holds no trial"
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise ConfigError(f"{file}: is not a study's database, or is damaged ({' '.join(found.split())}); its "
                          f"folder holds {counted(num_trials, 'trial')}. Restore the file from a copy, or start a new "
                          "study with --out.")


def _check_unchanged(stored: ResolvedConfig, config: ResolvedConfig, path: Path, kind: Kind) -> None:
    by_content = (*CORPUS_FIELDS, "source") if (path / "made_of.json").exists() else ()
    for field in FIXED_FIELDS:
        before, after = getattr(stored, field), getattr(config, field)
        if before != after and field not in by_content:
            name = kind.own_names.get(field, field)
            flag = command(f"--{name.replace('_', '-')}", *_pasted(after))
            anew = kind.anew.format(run=quoted(path), flag=flag)
            raise ConfigError(f"{path}: {name} of the {kind.name} is {before!r}, and {after!r} now; a resumed one "
                              f"keeps it{WHY_KEPT.get(field, '')}. Leave the flag out, or {anew}.")


def _pasted(value: Any) -> list[str]:
    """A field's value, as written after its flag."""
    if is_dataclass(value):  # a language described by a file
        return ["FILE.yaml"]
    return [*map(str, value)] if isinstance(value, tuple) else [str(value)]
