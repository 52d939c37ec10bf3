"""StudyConfig: every choice about a study, as given; ResolvedConfig: with all defaults filled in."""

import dataclasses
import math
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corpora.languages import Language, language
from corpora.manifest import SPLITS
from search.addresses import why_refused
from search.config_fields import ConfigError as ConfigError
from search.config_fields import check_at_least, known_or_read, named_sources, seconds
from search.environment import name_person
from spaces.typed import Named, build, check_types, load_yaml

RUN_VERSION = 1
"""Format version of a run's folder, stored in config.yaml."""

CORPUS_FIELDS = ("corpus", *SPLITS)
"""Fields that name corpora: with the splits that they state, or as one split."""

MAX_SEED = 2**31 - 1
"""Libraries take seeds of 32 bits, and further seeds are derived by counting up."""


Objective = Literal["wer", "cer"]
"""The error rate that a study minimises."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Named):
    """One study. Fields left unset get the default of the embedded study or, with a corpus, of a GPU cluster."""

    error = ConfigError

    corpus: tuple[str, ...] = ()
    """Common Voice releases or LibriSpeech (tarball or folder), NeMo manifests or folders of them; a tarball also by
    its URI (s3://, gs://); or by name, downloaded into the cache:
    librispeech:train-clean-100 and its other subsets, mdc:ID from the Mozilla Data Collective (its key is read from
    $MDC_API_KEY). None: the embedded default."""
    train: tuple[str, ...] = ()
    """NeMo manifests to use entirely as the training split, whatever their names say. With --corpus, a manifest called
    train_manifest.json, dev.jsonl (val, valid, validation) or test_manifest.json is the split of its name, or of its
    lines' `split`; one that states none is split by speaker, or joined to train if there is a dev. Default: none."""
    dev: tuple[str, ...] = ()
    """NeMo manifests to use entirely as the development split. Default: none."""
    test: tuple[str, ...] = ()
    """NeMo manifests to use entirely as the test split. Default: none."""
    language: str | Language = "es"
    """Code of the corpus's language, or a YAML file that describes another language."""
    source: str | tuple[str, ...] | None = None
    """A pretrained QuartzNet, English or of any language: a .nemo file, or stt_en_quartznet15x5, QuartzNet15x5Base-En,
    QuartzNet15x5NR-En or QuartzNet5x5LS-En, which are downloaded from NVIDIA's catalog into the cache. Of several, the
    search chooses too; they must have one shape. `none` trains from random weights. Embedded default: makes one."""
    space: str | None = None
    """Search space: a module of spaces/ by name. Default: synthetic for the embedded default, else spanish."""
    trials: int | None = None
    """Recipes to try. Default: 8 embedded, else 100."""
    max_epochs: int | None = None
    """Passes over the training split of a trial that is never stopped. Default: 6 embedded, else 30."""
    budget: str | None = None
    """Wall time of the study, such as 90s, 45m or 8h, including all resumes. The search ends early enough
    that the best recipes can be confirmed within it, but gets at least half of it. What then does not fit is left out:
    first what transfer gained, then other seeds, then the hand recipe, last the runners-up. The winner is always
    trained to its end. Of several budgets, the one reached first counts. Default: none."""
    budget_gpu_h: float | None = None
    """GPU hours of the study, applied like `budget`: the GPUs of each trial times the hours from its start to its end.
    Refused if trials use no GPU. Default: none."""
    cost_per_hour: float | None = None
    """Price of the whole cluster per hour of wall time, in any currency; on its own it only adds the cost to the
    summary. Default: none."""
    budget_cost: float | None = None
    """Money for the study, in the currency of `cost_per_hour`, applied like `budget`. Default: none."""
    objective: Objective | None = None
    """What is minimised: wer, errors in words, or cer, errors in letters. Default: wer, or cer for a language written
    without spaces. Both are reported in any case."""
    confirm: int = 2
    """Number of best recipes to train again on other seeds before one is named the winner. The best hand recipe is
    added if it is not among them."""
    seeds: int = 2
    """Seeds per confirmed recipe, including that of its trial."""
    seed: int = 0
    """Seed of the proposals and of every trial's randomness."""
    warm_start: tuple[str, ...] = ()
    """Run folders of other studies (another language, another release), finished or running: the three best recipes of
    each are tried right after the hand recipes, at most a third of the trials in all. Default: none."""
    workers_per_trial: int = 1
    """Workers per trial, each a process with its share of every batch (DDP)."""
    cpus_per_worker: float | None = None
    """CPUs, and so threads, of one worker; with 0.5, two share one. Default: with a corpus and one worker per trial,
    what `concurrency` finds, else 1."""
    gpus_per_worker: float | None = None
    """GPUs of one worker; with 0.25, four share one. Default: 0 if the cluster has none; with a corpus and one worker
    per trial, what `concurrency` finds, else 1."""
    trial_timeout: str = "30m"
    """Longest time without a training step, such as 90s, 45m or 8h. The trial's process is then ended, and it resumes
    from its last checkpoint; a trial that hangs three times without completing an epoch in between has failed."""
    concurrency: int | Literal["auto"] = "auto"
    """Number of trials at the same time. `auto` fills the cluster: unless a worker's share is set, it first trains for
    seconds with 1, 2, 4 and more trials on a node or a GPU, and stops where more trials would not raise the total
    throughput by 5 % or not fit in memory. If the share is set, it is kept, and only memory limits the number. With a
    number nothing is measured: that many trials divide the cores or GPUs."""
    grace_epochs: int | None = None
    """Epochs that every trial runs before it can be stopped (ASHA's first rung). Default: 3 embedded, else 2."""
    reduction_factor: int = 3
    """At each rung, the best one in this many trials continues (ASHA's eta)."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision in training: bfloat16 where the hardware supports it and float32 elsewhere (auto), or as given."""
    max_audio_s_per_pass: float | None = None
    """Padded seconds of audio in memory at once on a worker; a larger step takes several passes. Default: 80 on a
    CPU, 480 on a GPU."""
    min_duration_s: float = 0.3
    """Shorter clips are left out."""
    max_duration_s: float = 20.0
    """Longer clips are left out."""
    max_infeasible_share: float = 0.05
    """A vocabulary is excluded if CTC cannot align more than this share of the training clips with it."""
    allow_overlap: bool = False
    """Continue if a speaker or a sentence of the test split is also in the training split. Test figures then flatter
    the model, as the summary and the card say. Otherwise it is an error."""
    ablation: bool = True
    """Train the winner's recipe from random weights, with only the source's encoder, and with the letters too, at equal
    budget, to measure what transfer gained."""
    data_scaling: bool | None = None
    """Train the winner's recipe on a half and a quarter of the speech too, and estimate from these what more speech
    would give. A budget keeps no room for them. Default: as `ablation`."""
    wandb: Literal["online", "offline", "off"] = "offline"
    """Where W&B records the study: on its servers, in the run's folder, or nowhere."""
    out: str | None = None
    """The run's folder. Default: a folder in runs/ named after the date."""
    cache: str | None = None
    """Folder for downloads, features, vocabularies and the embedded corpora, shared by studies; on a cluster it must be
    on shared storage. Default: $CUARZO_CACHE or ~/.cache/cuarzo."""

    def __post_init__(self) -> None:
        check_types(self, ConfigError)
        if isinstance(self.source, tuple) and len(self.source) == 1:
            object.__setattr__(self, "source", self.source[0])
        check_shared(self)
        self.sources  # noqa: B018  raises here if two have one name
        if twice := [path for path, count in Counter(self.corpora).items() if count > 1]:
            raise ConfigError(f"{twice[0]}: is named twice as a corpus; its clips would be used twice, or be in two "
                              "splits. Name it once.")
        check_at_least(self, 1, "trials", "max_epochs", "confirm", "seeds", "workers_per_trial", "grace_epochs")
        check_at_least(self, 2, "reduction_factor")
        if self.concurrency != "auto":
            check_at_least(self, 1, "concurrency")
        if not 0 <= self.max_infeasible_share <= 1:
            raise ConfigError(f"max_infeasible_share is {self.max_infeasible_share}; it must be in [0, 1].")
        if self.corpora and not self.source:
            raise ConfigError("source is not set; a study with a corpus needs --source MODEL.nemo to start from, "
                              "or --source none to train from random weights.")
        object.__setattr__(self, "language", known_or_read(self.language))
        if not self.corpora and (self.source or self.language != "es"):
            raise ConfigError("corpus is not set; without one the embedded default makes its own Spanish corpus and "
                              "English source. Name a corpus with --corpus, or leave --source and --language out.")
        self._check_budgets()

    def _check_budgets(self) -> None:
        self.budget_s, self.trial_timeout_s  # noqa: B018  raises here if a time cannot be read
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
            ConfigError: none of it would ever be spent.
        """
        if self.budget_gpu_h is not None and not gpus_per_worker:
            raise ConfigError(f"budget_gpu_h is {self.budget_gpu_h:g}, and trials have 0 GPUs, so none of it is ever "
                              "spent. Limit the study by --budget or --trials, or give trials GPUs: --gpus-per-worker "
                              "above 0 on a cluster that has some.")

    @property
    def corpora(self) -> tuple[str, ...]:
        """All paths and names that speech is read from, in order; none for the embedded default."""
        return tuple(path for name in CORPUS_FIELDS for path in getattr(self, name))

    @property
    def sources(self) -> dict[str, str]:
        """The pretrained models by their names in recipes: a file's own name, or "" for the only one."""
        return named_sources(self.source)

    def source_called(self, name: str) -> str | None:
        """The pretrained model that recipes call so: the only or first one if there is none; as given without any."""
        if sources := self.sources:
            return sources.get(name, next(iter(sources.values())))
        return "none" if self.source == "none" else None

    @property
    def given_splits(self) -> tuple[str, ...]:
        """The split that each of `corpora` was given as; "" for those of `corpus`."""
        return tuple("" if name == "corpus" else name for name in CORPUS_FIELDS for _ in getattr(self, name))

    @property
    def spoken(self) -> Language:
        """The language with all its fields."""
        return language(self.language) if isinstance(self.language, str) else self.language

    @property
    def budget_s(self) -> float:
        """The wall time in seconds; infinite if none is set."""
        return math.inf if self.budget is None else seconds("budget", self.budget)

    @property
    def trial_timeout_s(self) -> float:
        """The longest time without a training step, in seconds."""
        return seconds("trial_timeout", self.trial_timeout)

    @property
    def cache_folder(self) -> Path:
        """Where features, vocabularies and the embedded corpora are kept between studies."""
        name_person()  # a caller from Python may have no HOME either
        return Path(self.cache or os.environ.get("CUARZO_CACHE") or "~/.cache/cuarzo").expanduser().resolve()

    def run_path(self) -> Path:
        """The run's folder; without `out`, the one that a run started now would get."""
        return Path(self.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")).expanduser().resolve()

    def resolved(self) -> "ResolvedConfig":
        """The same study, with the defaults filled in that depend on whether a corpus was given."""
        names = ("space", "trials", "max_epochs", "grace_epochs", "objective", "data_scaling")
        objective = "wer" if self.spoken.has_spaces else "cer"
        own = (objective, self.ablation)
        defaults = ("spanish", 100, 30, 2, *own) if self.corpora else ("synthetic", 8, 6, 3, *own)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        unset = {name: value for name, value in zip(names, defaults, strict=True) if values[name] is None}
        return ResolvedConfig(**values | unset)


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(StudyConfig):
    """A study as it is run, with all of StudyConfig's defaults filled in."""

    space: str
    trials: int
    max_epochs: int
    grace_epochs: int
    objective: Objective
    data_scaling: bool

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which trials that fall behind are stopped."""
        return rungs(self.max_epochs, self.grace_epochs, self.reduction_factor)


def rungs(max_epochs: int, grace_epochs: int, reduction_factor: int) -> tuple[int, ...]:
    """Epochs before the last at which successive halving stops trials, each `reduction_factor` times the one before."""
    found, epoch = list[int](), grace_epochs
    while epoch < max_epochs:
        found.append(epoch)
        epoch *= reduction_factor
    return tuple(found)


def check_shared(config: Any) -> None:
    """Check the limits of the fields that a study and a training share.

    Raises:
        ConfigError: a field is outside its limits, or an address contains a key.
    """
    sources = (config.source,) if isinstance(config.source, str) else config.source or ()
    given = [(name, one) for name in CORPUS_FIELDS for one in getattr(config, name)]
    given += [("source", one) for one in sources]
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


def load_config(folder: Path) -> ResolvedConfig:
    """Read the configuration of the study in a run's folder.

    Raises:
        ConfigError: there is no study, it has another version, or the file is damaged.
    """
    file = folder / "config.yaml"
    if not file.exists():
        raise ConfigError(f"{folder}: there is no study to resume here (config.yaml is missing). Check the path.")
    fix = "Restore the file from a copy, or start a new study with --out."
    try:
        values = load_yaml(file, "study configuration", ConfigError)
    except ConfigError as error:
        raise ConfigError(f"{error} {fix}") from None
    check_version(values.pop("version", None), folder)
    try:
        return build(StudyConfig, values, ConfigError).resolved()
    except ConfigError as error:
        raise ConfigError(f"{file}: {error} {fix}") from None


def check_version(version: Any, where: Path | str) -> None:
    if version != RUN_VERSION:
        raise ConfigError(f"{where}: the study is of version {version!r}; this Cuarzo reads version {RUN_VERSION}. "
                          "Continue with the Cuarzo that began it, or start a new study with --out.")
