"""StudyConfig: every choice about a study, as it was given; ResolvedConfig: with every default decided."""

import dataclasses
import math
import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corpora.languages import Language, LanguageError, language
from corpora.manifest import SPLITS
from search.addresses import why_refused
from search.environment import name_person
from spaces.typed import Named, build, check_types, load_yaml

RUN_VERSION = 1
"""Of a run's folder, in its config.yaml."""

CORPUS_FIELDS = ("corpus", *SPLITS)
"""What names corpora: as what they say they are, or as one split."""

MAX_SEED = 2**31 - 1
"""Libraries that draw from it take 32 bits, and more than one is made from it by counting up."""


Objective = Literal["wer", "cer"]
"""The error rate that a study minimises."""


class ConfigError(ValueError):
    """A field of the study's configuration outside its limits, or two that contradict."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Named):
    """One study. What is left unset gets the default of the embedded study or, with a corpus, of a GPU cluster."""

    error = ConfigError

    corpus: tuple[str, ...] = ()
    """Common Voice releases or LibriSpeech (tarball or folder), NeMo manifests or folders of them; a tarball also by
    its URI (s3://, gs://); or by name, downloaded into the cache:
    librispeech:train-clean-100 and its other subsets, mdc:ID from the Mozilla Data Collective (its key is read from
    $MDC_API_KEY). None: the embedded default."""
    train: tuple[str, ...] = ()
    """NeMo manifests that are the training split whole, whatever their names say. With --corpus a manifest called
    train_manifest.json, dev.jsonl (val, valid, validation) or test_manifest.json is the split of its name, or of its
    lines' `split`; one that says none is split by speaker, or joined to train where there is a dev. Default: none."""
    dev: tuple[str, ...] = ()
    """NeMo manifests that are the development split whole. Default: none."""
    test: tuple[str, ...] = ()
    """NeMo manifests that are the test split whole. Default: none."""
    language: str | Language = "es"
    """Code of the language that is spoken and written in the corpus, or a YAML file that describes another one."""
    source: str | None = None
    """A pretrained English QuartzNet: a .nemo file, or stt_en_quartznet15x5, QuartzNet15x5Base-En, QuartzNet15x5NR-En
    or QuartzNet5x5LS-En, which are downloaded from NVIDIA's catalog into the cache; `none` to train from random
    weights. Embedded default: makes one."""
    space: str | None = None
    """Search space: a module of spaces/ by name. Default: synthetic for the embedded default, else spanish."""
    trials: int | None = None
    """Recipes to try. Default: 8 embedded, else 100."""
    max_epochs: int | None = None
    """Passes over the training split of a trial that is never stopped. Default: 6 embedded, else 30."""
    budget: str | None = None
    """Wall time of the study, as 90s, 45m or 8h, the time of all its resumes together. The search ends early enough
    that the best recipes are confirmed within it, but has at least half of it; what then does not fit is left out: what
    transfer bought first, other seeds next, then the hand recipe, runners-up last. The winner is trained to its end in
    any case. With other budgets the one reached first counts. Default: none."""
    budget_gpu_h: float | None = None
    """GPU hours of the study, kept like `budget`: the GPUs of each trial times the hours from its start to its end.
    Refused where trials hold no GPU. Default: none."""
    cost_per_hour: float | None = None
    """Price of the whole cluster for an hour of wall time, in any currency; alone it only puts the cost into the
    summary. Default: none."""
    budget_cost: float | None = None
    """Money for the study in the currency of `cost_per_hour`, kept like `budget`. Default: none."""
    objective: Objective | None = None
    """What is minimised: wer, errors in words, or cer, errors in letters. Default: wer, or cer for a language written
    without spaces. Both are reported in any case."""
    confirm: int = 2
    """Best recipes that are trained again on other seeds before one is named the winner. The best hand recipe comes
    with them where it is not among them."""
    seeds: int = 2
    """Seeds of a confirmed recipe, the one of its trial included."""
    seed: int = 0
    """Seed of the proposals and of every trial's randomness."""
    warm_start: tuple[str, ...] = ()
    """Run folders of other studies (another language, another release), finished or running: the three best recipes of
    each are tried right after the hand recipes, at most a third of the trials in all. Default: none."""
    workers_per_trial: int = 1
    """Workers of one trial, each a process with its share of every batch (DDP)."""
    cpus_per_worker: float | None = None
    """CPUs of one worker, and with them its threads; with 0.5 two share one. Default: with a corpus and one worker a
    trial what `concurrency` finds, else 1."""
    gpus_per_worker: float | None = None
    """GPUs of one worker; with 0.25 four share one. Default: 0 where the cluster has none; with a corpus and one worker
    a trial what `concurrency` finds, else 1."""
    trial_timeout: str = "30m"
    """How long a trial may take without a training step, as 90s, 45m or 8h. Its process is then ended, and it goes on
    from its last checkpoint; one that hangs three times without an epoch between has failed."""
    concurrency: int | Literal["auto"] = "auto"
    """Trials that run at the same time. `auto` fills the cluster. Where the share of a worker is left open it first
    trains for seconds with 1, 2, 4 and more trials on a node or a GPU, keeps the number beyond which they do not train
    on 5 % more speech together, or do not fit into memory, and says so; a share that is given is kept, and memory alone
    bounds the number. With N nothing is measured: N trials divide the cores or GPUs."""
    grace_epochs: int | None = None
    """Epochs that every trial may run before it can be stopped (ASHA's first rung). Default: 3 embedded, else 2."""
    reduction_factor: int = 3
    """A rung lets the best one in this many go on (ASHA's eta)."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Numbers in training: bfloat16 where the hardware multiplies it, float32 elsewhere, or as given."""
    max_audio_s_per_pass: float | None = None
    """Padded seconds of audio in memory at once on a worker; a larger step takes several passes. Default: 80 on a
    CPU, 480 on a GPU."""
    min_duration_s: float = 0.3
    """Shorter clips are left out."""
    max_duration_s: float = 20.0
    """Longer clips are left out."""
    max_infeasible_share: float = 0.05
    """A vocabulary is out if CTC cannot align more than this share of the training clips with it."""
    allow_overlap: bool = False
    """Go on where a speaker or a sentence of the test split is in the training split too. Test figures then flatter the
    model, which the summary and the card say; without this it is an error."""
    ablation: bool = True
    """Train the winner's recipe from random weights, with the source's encoder alone and with the letters kept too, at
    the same budget, to say what transfer bought."""
    wandb: Literal["online", "offline", "off"] = "offline"
    """Where W&B records the study: its servers, the run's folder, or nowhere."""
    out: str | None = None
    """The run's folder. Default: runs/ and a name made of the date."""
    cache: str | None = None
    """Folder of downloads, features, vocabularies and the embedded corpora, shared by studies; on a cluster on shared
    storage. Default: $CUARZO_CACHE or ~/.cache/cuarzo."""

    def __post_init__(self) -> None:
        check_types(self, ConfigError)
        check_shared(self)
        if twice := [path for path, count in Counter(self.corpora).items() if count > 1]:
            raise ConfigError(f"{twice[0]}: is named twice as a corpus; its clips would be heard twice, or in two "
                              "splits. Name it once.")
        check_at_least(self, 1, "trials", "max_epochs", "confirm", "seeds", "workers_per_trial", "grace_epochs")
        check_at_least(self, 2, "reduction_factor")
        if self.concurrency != "auto":
            check_at_least(self, 1, "concurrency")
        if not 0 <= self.max_infeasible_share <= 1:
            raise ConfigError(f"max_infeasible_share is {self.max_infeasible_share}; it must be in [0, 1].")
        if self.corpora and self.source is None:
            raise ConfigError("source is not set; a study with a corpus needs --source MODEL.nemo to start from, "
                              "or --source none to train from random weights.")
        object.__setattr__(self, "language", known_or_read(self.language))
        if not self.corpora and (self.source is not None or self.language != "es"):
            raise ConfigError("corpus is not set; without one the embedded default makes its own Spanish corpus and "
                              "English source. Name a corpus with --corpus, or leave --source and --language out.")
        self._check_budgets()

    def _check_budgets(self) -> None:
        self.budget_s, self.trial_timeout_s  # noqa: B018  a time that cannot be read is found here
        for name in ("budget_gpu_h", "cost_per_hour", "budget_cost"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; it must be a finite number above 0. Leave it out for none.")
        if self.budget_cost is not None and self.cost_per_hour is None:
            raise ConfigError(f"budget_cost is {self.budget_cost:g}, and cost_per_hour is not set; the cost of a study "
                              "is wall hours times it. Give the cluster's price with --cost-per-hour.")
        if self.gpus_per_worker == 0:
            self.check_gpu_budget(0)

    def check_gpu_budget(self, gpus_per_worker: float) -> None:
        """Refuse a budget of GPU hours for trials that hold no GPU.

        Raises:
            ConfigError: nothing would ever be spent of it.
        """
        if self.budget_gpu_h is not None and not gpus_per_worker:
            raise ConfigError(f"budget_gpu_h is {self.budget_gpu_h:g}, and trials have 0 GPUs, so none of it is ever "
                              "spent. Limit the study by --budget or --trials, or give trials GPUs: --gpus-per-worker "
                              "above 0 on a cluster that has some.")

    @property
    def corpora(self) -> tuple[str, ...]:
        """All that speech is read from, in order; none for the embedded default."""
        return tuple(path for name in CORPUS_FIELDS for path in getattr(self, name))

    @property
    def given_splits(self) -> tuple[str, ...]:
        """The split that each of `corpora` was named as, "" for those of `corpus`."""
        return tuple("" if name == "corpus" else name for name in CORPUS_FIELDS for _ in getattr(self, name))

    @property
    def spoken(self) -> Language:
        """The language with all that is known of it."""
        return language(self.language) if isinstance(self.language, str) else self.language

    @property
    def budget_s(self) -> float:
        """The wall time in seconds; infinite where none is set."""
        return math.inf if self.budget is None else seconds("budget", self.budget)

    @property
    def trial_timeout_s(self) -> float:
        """The time without a training step, in seconds."""
        return seconds("trial_timeout", self.trial_timeout)

    @property
    def cache_folder(self) -> Path:
        """Where features, vocabularies and the embedded corpora are kept between studies."""
        name_person()  # who calls from Python may have no home either
        return Path(self.cache or os.environ.get("CUARZO_CACHE") or "~/.cache/cuarzo").expanduser().resolve()

    def run_path(self) -> Path:
        """The run's folder; where `out` names none, the one that a run begun now would get."""
        return Path(self.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")).expanduser().resolve()

    def resolved(self) -> "ResolvedConfig":
        """The same study with every default decided that depends on whether a corpus was given."""
        names = ("space", "trials", "max_epochs", "grace_epochs", "objective")
        objective = "wer" if self.spoken.has_spaces else "cer"
        defaults = ("spanish", 100, 30, 2, objective) if self.corpora else ("synthetic", 8, 6, 3, objective)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        unset = {name: value for name, value in zip(names, defaults, strict=True) if values[name] is None}
        return ResolvedConfig(**values | unset)


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(StudyConfig):
    """A study as it is run: what StudyConfig may leave to its defaults is decided."""

    space: str
    trials: int
    max_epochs: int
    grace_epochs: int
    objective: Objective

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which trials that fall behind are stopped."""
        return rungs(self.max_epochs, self.grace_epochs, self.reduction_factor)


def rungs(max_epochs: int, grace_epochs: int, reduction_factor: int) -> tuple[int, ...]:
    """Epochs before the last at which successive halving decides, each `reduction_factor` times the one before."""
    found, epoch = list[int](), grace_epochs
    while epoch < max_epochs:
        found.append(epoch)
        epoch *= reduction_factor
    return tuple(found)


def check_shared(config: Any) -> None:
    """Hold what a study and a training both have to its limits.

    Raises:
        ConfigError: a field is outside them, or an address holds a key.
    """
    given = [(name, one) for name in CORPUS_FIELDS for one in getattr(config, name)] + [("source", config.source or "")]
    for name, address in given:  # first: other errors repeat what was given
        if why := why_refused(address):
            raise ConfigError(f"{name} {why}")
    check_at_least(config, 0, "seed", "gpus_per_worker", "min_duration_s")
    if config.seed is not None and config.seed > MAX_SEED:
        raise ConfigError(f"seed is {config.seed}; it must be at most {MAX_SEED}.")
    if config.gpus_per_worker is not None and config.gpus_per_worker > 1 and config.gpus_per_worker % 1:
        raise ConfigError(f"gpus_per_worker is {config.gpus_per_worker}; above 1 it must be a whole number.")
    for name in ("cpus_per_worker", "max_audio_s_per_pass"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}; it must be above 0.")
    if not config.min_duration_s < config.max_duration_s:
        raise ConfigError(f"min_duration_s is {config.min_duration_s}; it must be below max_duration_s = "
                          f"{config.max_duration_s}.")


def check_at_least(config: Any, limit: int, *names: str) -> None:
    """Refuse a finite number below a limit; None is none.

    Raises:
        ConfigError: it is below, or no number.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not limit <= value < math.inf:
            raise ConfigError(f"{name} is {value}; it must be at least {limit}.")


def known_or_read(name: str | Language) -> str | Language:
    """A known language's code as it is, and the content of a file in place of its path, as no worker can read it."""
    if isinstance(name, Language):
        return name
    try:
        found = language(name)
    except LanguageError as error:
        raise ConfigError(str(error)) from None
    return found.code if found.code == name else found


def seconds(name: str, text: str) -> float:
    """A time in words as seconds.

    Raises:
        ConfigError: it cannot be read.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    found = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < found < math.inf:
        raise ConfigError(f"{name} is {text!r}; it must be a time above 0 such as 90s, 45m or 8h.")
    return found


def load_config(folder: Path) -> ResolvedConfig:
    """Read the configuration of the study in a run's folder.

    Raises:
        ConfigError: no study there, one of another version, or a damaged file.
    """
    file = folder / "config.yaml"
    if not file.exists():
        raise ConfigError(f"{folder}: there is no study to resume here (config.yaml is missing). Check the path.")
    mend = "Restore the file from a copy, or start a new study with --out."
    try:
        values = load_yaml(file, "study configuration", ConfigError)
    except ConfigError as error:
        raise ConfigError(f"{error} {mend}") from None
    check_version(values.pop("version", None), folder)
    try:
        return build(StudyConfig, values, ConfigError).resolved()
    except ConfigError as error:
        raise ConfigError(f"{file}: {error} {mend}") from None


def check_version(version: Any, where: Path | str) -> None:
    if version != RUN_VERSION:
        raise ConfigError(f"{where}: the study is of version {version!r}; this Cuarzo reads version {RUN_VERSION}. Go "
                          "on with the Cuarzo that began it, or start a new study with --out.")
