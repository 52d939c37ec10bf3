"""The scripts' commands: read the command line, run, and turn errors into one line and an exit code."""

import errno
import re
import sys
from argparse import BooleanOptionalAction
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Protocol

from installation import explain
from search.command_line.streams import leave_reader, steady
from search.environment import name_person
from search.trials.interrupt import exit_code, is_stopped, supervised

DONE, FAILED, INTERRUPTED = 0, 1, 130

_KEPT = "interrupted; what was done is kept: resume with --resume and the run's folder, or with the same command"


Work = Callable[[Sequence[str] | None], None]
"""What a script does with its command-line arguments; None means those of the process."""


class Command(Protocol):
    """A whole script; returns its exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


_OF_THE_PERSON = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR,
                  errno.EEXIST, errno.ENAMETOOLONG}
"""Errors that a path or a disk causes; any other file error is a bug of ours and keeps its traceback."""

_OURS = (("corpora.audio", "AudioError"), ("corpora.features", "FeatureStoreError"),
         ("corpora.manifest", "CorpusError"), ("models.export", "ExportError"), ("models.nemo", "NemoFileError"),
         ("models.quartznet", "NetworkError"), ("files.saved", "UnsafeFileError"),
         ("models.transfer", "TransferError"), ("models.vocabulary", "VocabularyError"),
         ("search.cluster", "ClusterError"), ("search.config", "ConfigError"),
         ("search.records.disk_space", "DiskFullError"), ("search.speech.retry", "DownloadError"),
         ("search.training", "TrainingError"), ("search.tuning.searcher", "SearchError"),
         ("spaces.recipe", "RecipeError"))

_DESCRIPTION = """Search for the best recipe to fine-tune a pretrained English QuartzNet to another language:
optimizer, warm-up and annealing, vocabulary, and how much of the English is kept. Without a corpus it runs the
embedded default: synthetic speech, start to end in a few minutes on two cores."""


def _script(outlive_reader: bool = False, if_interrupted: str = _KEPT) -> Callable[[Work], Command]:
    """Run a whole script, including parsing its command line and `--help`.

    An error of ours is one line on standard error and exit code 1; a supervisor's signal acts like Ctrl-C, and no
    unprintable character stops it. A study continues when nobody reads its output; other scripts end quietly.
    """
    def of(work: Work) -> Command:
        @wraps(work)
        def script(arguments: Sequence[str] | None = None) -> int:
            name_person()
            with steady(outlive_reader), supervised():
                try:
                    code = _told(work, arguments)
                except SystemExit as ended:  # from --help, and from wrong usage
                    raise SystemExit(ended.code or _flush()) from None
                except KeyboardInterrupt:  # also while the libraries are loaded, which takes seconds
                    print(if_interrupted, file=sys.stderr)
                    code = exit_code()
                except BrokenPipeError:  # the reader has closed the pipe
                    code = DONE
                return code or _flush()
        return script
    return of


@_script(outlive_reader=True)
def run(arguments: Sequence[str] | None) -> None:
    """`search/run.py`: run a study, resume one, or only check its corpus."""
    from search.command_line.arguments import parse_command_line

    config, resume, only_check, look_again = parse_command_line(_DESCRIPTION, arguments)
    if sys.stderr.isatty():
        print("loading PyTorch and Ray", file=sys.stderr, flush=True)
    from search.command_line.check import check
    from search.results.summary import card
    from search.study import run_study

    if only_check:
        check(config)
        return
    result = run_study(config, resume, look_again)
    print(f"\n{card(result.summary)}\nbest recipe and model: {result.path / 'best'}\n"
          f"report: {result.path / 'report.html'}\n{_next(result.path)}")


@_script(outlive_reader=True)
def train(arguments: Sequence[str] | None) -> None:
    """`search/train.py`: train a recipe for production, or resume such a training."""
    from search.command_line.training_arguments import parse_training

    recipe, config, resume, look_again = parse_training(arguments)
    from search.training import model_card, train_recipe

    result = train_recipe(recipe, config, resume, look_again)
    print(f"\n{model_card(result.summary)}\nmodel and card: {result.path / 'best'}\n"
          f"report: {result.path / 'report.html'}\n{_next(result.path)}")


@_script(if_interrupted="interrupted")
def transcribe(arguments: Sequence[str] | None) -> None:
    """`search/transcribe.py`: print transcripts of audio files, one line per file."""
    from search.command_line.flags import Parser

    parser = Parser(description="Transcribe audio of any format and length, one line per clip, in the order given.")
    parser.add_argument("model", metavar="MODEL", help="a run's folder, for its best/model.nemo; a .nemo file; a "
                        "model.onnx, which ONNX Runtime runs; or a name of NVIDIA's catalog, such as "
                        "stt_en_quartznet15x5, whose model is downloaded")
    parser.add_argument("clips", metavar="CLIP", nargs="+",
                        help="an audio file; a folder: all audio files in it, at any depth; a .txt file: a path per "
                             "line; a .jsonl file: a NeMo manifest; -: a path per line on standard input. Relative "
                             "paths in a file start from its folder")
    parser.add_argument("--json", action="store_true",
                        help="print a JSON object per clip: path, duration_s, text and words, each with start_s, end_s "
                             "and confidence (the mean posterior of its labels, up to 1)")
    parser.add_argument("--names", action=BooleanOptionalAction, default=None,
                        help="print each clip's path and a tab before its text (a tab in a path is \\t, a line's end "
                             "\\n). Default: yes, except for a single audio file. JSON always has the path")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto",
                        help="precision for a .nemo: bfloat16 where the hardware supports it, float32 elsewhere "
                             "(auto, the default), or as given. A model.onnx always runs in float32")
    given = parser.parse_args(arguments)

    from corpora.clips import find_clips
    from models.export import ExportError
    from models.onnx_runtime import load_onnx
    from models.recognizer import Recognizer
    from search.command_line.print_transcripts import are_named, print_transcripts
    from search.speech.catalog import SOURCES

    model = given.model
    if model in SOURCES:
        from search.config import StudyConfig
        from search.speech.resolve import local_path

        model = local_path(model, StudyConfig().cache_folder)
    kind = Path(model).suffix.lower()
    if kind == ".ts":
        raise ExportError(f"{given.model}: TorchScript is for programs that load it themselves. Name the "
                          "model.nemo or the model.onnx next to it.")
    transcriber = (load_onnx(model) if kind == ".onnx"
                   else Recognizer.load(model, precision=given.precision).transcriber)
    has_names = are_named(given.clips) if given.names is None else given.names
    print_transcripts(transcriber, list(find_clips(given.clips)), given.json, has_names)


@_script()
def report(arguments: Sequence[str] | None) -> None:
    """`search/report.py`: draw the report of a run again."""
    from search.command_line.flags import Parser

    parser = Parser(description="Draw the report of a study or a production training again, finished or not.",
                    stray="is one folder too many: search/report.py draws one run, and search/compare.py compares two.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    given = parser.parse_args(arguments)

    from search.records.run_folder import PRODUCTION, kind_of
    from search.results.report_page import write_report
    from search.results.training_report import write_training_report

    run = given.run.resolve()
    print(write_training_report(run) if kind_of(run) is PRODUCTION else write_report(run))


@_script()
def compare(arguments: Sequence[str] | None) -> None:
    """`search/compare.py`: finished studies and production trainings side by side."""
    from search.command_line.flags import Parser

    parser = Parser(description="Compare the models of finished studies and production trainings that were scored on "
                                "the same texts.")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, which the others are compared with")
    parser.add_argument("others", metavar="RUN", type=Path, nargs="+", help="other runs' folders")
    given = parser.parse_args(arguments)

    from search.results.compare_runs import compare

    print(compare([run.resolve() for run in (given.run, *given.others)]))


def _flush() -> int:
    """Flush standard output; at exit the interpreter would fail with a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        leave_reader()
    except OSError as error:
        leave_reader()
        return _failed(f"standard output cannot be written ({error.strerror}); the output is incomplete.")
    return DONE


def _next(run: Path) -> str:
    """What to do with a finished run, as commands to paste."""
    best, is_study = run / "best", (run / "study.db").exists()
    transcribe = f"{_command('transcribe', best / 'model.nemo')} CLIP"
    if not is_study:
        return f"transcribe with it: {transcribe}"
    train = f"{_command('train', best / 'recipe.yaml')} --epochs 100 --out runs/production"
    return (f"transcribe with it: {transcribe}\ntrain it for production: {train}\n"
            f"draw the report again: {_command('report', run)}")


def _command(script: str, path: Path) -> str:
    from search.records.shell_words import command

    return command("python", f"search/{script}.py", path)


def _told(work: Work, arguments: Sequence[str] | None) -> int:
    from search.trials.interrupt import Interrupted

    try:
        work(arguments)
    except _ours() as error:
        # An error from a Ray task includes the task's traceback; its cause has only the message.
        return _failed(str(getattr(error, "cause", error)))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return exit_code()
    except Exception as error:
        if is_stopped():  # whatever is running may fail in any way
            from search.records.trial_record import first_line

            print(f"{_KEPT} ({first_line(error)})", file=sys.stderr)
            return exit_code()
        known = explain(error) or _of_the_disk(error)
        if known is None:
            raise
        return _failed(known)
    return DONE


def _ours() -> tuple[type[Exception], ...]:
    """The errors whose message is meant for the user. Only modules already loaded can have raised one."""
    return tuple(getattr(sys.modules[module], name) for module, name in _OURS if module in sys.modules)


def _of_the_disk(error: Exception) -> str | None:
    from models.kernels.cpu import library_folder
    from search.records.disk_space import full_places, is_full

    cause = getattr(error, "cause", error)
    if isinstance(cause, OSError) and cause.errno in _OF_THE_PERSON:
        return f"{cause.filename or 'the disk'}: {cause.strerror}. Check the path, its rights and the room left."
    if is_full(error):
        return (f"{', '.join(map(str, full_places(error, library_folder())))}: the disk is full. Make room and run the "
                "same command again; what was done is kept.")
    return None


def _failed(message: str) -> int:
    line = re.sub(r"\s*\n\s*", " ", message.strip())  # keeps runs of spaces, which a path may have
    print(f"error: {line}", file=sys.stderr)
    return FAILED
