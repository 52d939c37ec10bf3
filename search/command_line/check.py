"""`--check`: report on a study's corpus and its cost, before it costs anything."""

from pathlib import Path
from tempfile import TemporaryDirectory

from models.kernels.cpu import library_folder
from search import cluster
from search.capacity.concurrency import gpus_per_worker
from search.command_line.corpus_tables import show
from search.config import ConfigError, StudyConfig
from search.records.disk_space import check_cache
from search.records.files import write_json
from search.records.run_folder import RunFolder
from search.speech.split_overlap import refuse_overlap
from search.speech.study_inputs import examine, open_inputs


def check(config: StudyConfig) -> None:
    """Print a report on a study's corpus and its cost, and save it as `corpus_report.json`.

    It is saved in `config.out` if that is given and holds no study, otherwise next to the features.

    Raises:
        CorpusError: test and train share a speaker or a sentence, and it is not allowed; raised after the report.
    """
    config = config.resolved()
    check_cache(config.cache_folder, library_folder())
    inputs = open_inputs(config)
    if inputs is None:
        raise ConfigError("corpus is not set; --check examines a corpus. Name one with --corpus.")
    with cluster.connected(), TemporaryDirectory() as folder:
        config.check_gpu_budget(gpus_per_worker(config))
        prepared, report, overlaps, _ = examine(RunFolder(Path(folder), config), inputs, is_time_wanted=True)
    out = Path(config.out).expanduser().resolve() if config.out else None
    path = (out if out and not (out / "study.db").exists() else prepared.store.folder) / "corpus_report.json"
    write_json(path, report)
    show(report)
    print(f"saved in {path}", flush=True)
    refuse_overlap(overlaps, config, path)
