"""What the scripts do: read the command line, run, and turn errors into one line and an exit code."""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from search.person import name_person

DONE, FAILED, INTERRUPTED = 0, 1, 130

_OF_THE_PERSON = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR,
                  errno.EEXIST, errno.ENAMETOOLONG}
"""What a path or a disk does to us; any other trouble with files is a bug of ours, and keeps its traceback."""

_DESCRIPTION = """Search for the best recipe to fine-tune a pretrained English QuartzNet to another language:
optimizer, warm-up and annealing, vocabulary, and how much of the English is kept. Without a corpus it runs the
embedded default: synthetic speech, start to end in a few minutes on two cores."""


def run(arguments: Sequence[str] | None = None) -> int:
    """`search/run.py`: run a study, resume one, or only look at its corpus."""
    name_person()
    from search.config import ConfigError, parse_command_line

    try:
        config, resume, only_check, look_again = parse_command_line(_DESCRIPTION, arguments)
    except ConfigError as error:
        return _failed(str(error))

    def work() -> None:
        if sys.stderr.isatty():
            print("loading PyTorch and Ray", file=sys.stderr, flush=True)
        from search.study import check, run_study
        from search.summary import card

        if only_check:
            check(config)
            return
        result = run_study(config, resume, look_again)
        print(f"\n{card(result.summary)}\nbest recipe and model: {result.path / 'best'}\n"
              f"report: {result.path / 'report.html'}")

    return _guarded(work)


def train(arguments: Sequence[str] | None = None) -> int:
    """`search/train.py`: train a recipe for production, or go on with such a training."""
    name_person()
    from search.config import ConfigError
    from search.training_config import parse_training
    from spaces.recipe import RecipeError

    try:
        recipe, config, resume, look_again = parse_training(arguments)
    except (ConfigError, RecipeError) as error:
        return _failed(str(error))

    def work() -> None:
        from search.training import model_card, train_recipe

        result = train_recipe(recipe, config, resume, look_again)
        print(f"\n{model_card(result.summary)}\nmodel and card: {result.path / 'best'}")

    return _guarded(work)


def transcribe(arguments: Sequence[str] | None = None) -> int:
    """`search/transcribe.py`: print what a model hears in sound files, a line a file."""
    parser = argparse.ArgumentParser(description="Transcribe sound of any format, rate and length, a line of text a "
                                                 "clip, in the order given.")
    parser.add_argument("model", metavar="MODEL", help="a .nemo file, such as runs/NAME/best/model.nemo, or a "
                                                         "model.onnx, which ONNX Runtime hears with")
    parser.add_argument("clips", metavar="CLIP", nargs="+",
                        help="a sound file; a folder: all sound files in it, at any depth; a .txt file: a path a line; "
                             "a .jsonl file: a NeMo manifest; -: a path a line on standard input. Relative paths in a "
                             "file count from its folder")
    parser.add_argument("--json", action="store_true",
                        help="print a JSON object a clip: path, duration_s, text and words, each with start_s, end_s "
                             "and confidence (the mean posterior of its labels, up to 1)")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto",
                        help="numbers that a .nemo is heard in: bfloat16 where the hardware multiplies it, float32 "
                             "elsewhere (auto, the default), or as given. A model.onnx is heard in float32")
    given = parser.parse_args(arguments)

    def work() -> None:
        from corpora.clips import find_clips
        from models.export import ExportError
        from models.onnx_runtime import load_onnx
        from models.recognizer import Recognizer
        from search.transcripts import print_transcripts

        kind = Path(given.model).suffix.lower()
        if kind == ".ts":
            raise ExportError(f"{given.model}: TorchScript is for programs that load it themselves. Name the "
                              "model.nemo or the model.onnx beside it.")
        transcriber = (load_onnx(given.model) if kind == ".onnx"
                       else Recognizer.load(given.model, precision=given.precision).transcriber)
        print_transcripts(transcriber, list(find_clips(given.clips)), given.json)

    return _guarded(work, if_interrupted="interrupted")


def report(arguments: Sequence[str] | None = None) -> int:
    """`search/report.py`: draw the report of a run again."""
    parser = argparse.ArgumentParser(description="Draw the report of a finished or running study again.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    given = parser.parse_args(arguments)

    def work() -> None:
        from search.report import write_report

        print(write_report(given.run.resolve()))

    return _guarded(work)


def compare(arguments: Sequence[str] | None = None) -> int:
    """`search/compare.py`: finished studies side by side."""
    parser = argparse.ArgumentParser(description="Compare the winners of finished studies that were judged by the same "
                                                 "texts.")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, beside which the others are put")
    parser.add_argument("others", metavar="RUN", type=Path, nargs="+", help="other runs' folders")
    given = parser.parse_args(arguments)

    def work() -> None:
        from search.compare import compare

        print(compare([run.resolve() for run in (given.run, *given.others)]))

    return _guarded(work)


def _guarded(work: Callable[[], None], if_interrupted: str = "interrupted; what was done is kept, and the same "
             "command or --resume goes on with it") -> int:
    """Run `work`; an error of ours is one line on standard error and exit code 1, Ctrl-C is 130."""
    name_person()
    try:
        return _told(work)
    except KeyboardInterrupt:  # also while the libraries are loaded, which takes seconds
        print(if_interrupted, file=sys.stderr)
        return INTERRUPTED


def _told(work: Callable[[], None]) -> int:
    from corpora.audio import AudioError
    from corpora.features import FeatureStoreError
    from corpora.manifest import CorpusError
    from models.export import ExportError
    from models.nemo import NemoFileError
    from models.quartznet import NetworkError
    from models.transfer import TransferError
    from models.vocabulary import VocabularyError
    from search.attempts import DownloadError
    from search.cluster import ClusterError
    from search.config import ConfigError
    from search.disk import DiskFullError, full_places, is_full
    from search.interrupt import Interrupted
    from search.sampler import SearchError
    from search.training import TrainingError
    from spaces.recipe import RecipeError

    ours = (AudioError, ClusterError, ConfigError, CorpusError, DiskFullError, DownloadError, ExportError,
            FeatureStoreError, NemoFileError, NetworkError, RecipeError, SearchError, TrainingError, TransferError,
            VocabularyError)
    try:
        work()
    except ours as error:
        # What was raised in a Ray task carries the task's traceback; its cause carries the message alone.
        return _failed(str(getattr(error, "cause", error)))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        cause = getattr(error, "cause", error)
        if isinstance(cause, OSError) and cause.errno in _OF_THE_PERSON:
            return _failed(f"{cause.filename or 'the disk'}: {cause.strerror}. Check the path, its rights and the room "
                           "left.")
        if is_full(error):
            return _failed(f"{', '.join(map(str, full_places(error)))}: the disk is full. Make room and run the same "
                           "command again; what was done is kept.")
        raise
    return DONE


def _failed(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return FAILED
