"""Print transcripts one by one: text or JSON on standard output, errors on standard error."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from corpora.audio import AudioError, duration_of
from corpora.clips import Clip, is_single
from models.transcription import Transcriber, Transcript
from search.command_line.streams import leave_reader
from search.trials.interrupt import Interrupted
from search.wording import counted

QUIET_S = 3.0
"""Shorter work shows no progress bar."""


def print_transcripts(transcriber: Transcriber, clips: Sequence[Clip | AudioError], as_json: bool,
                      has_names: bool = False) -> None:
    """Print one line per clip, in order, so that the nth line is the nth clip's; with names, its path and a tab first.

    For a clip that cannot be read, the text is empty, or with JSON the line is absent; the reason is a line on standard
    error, and the rest continues.

    Raises:
        AudioError: the only clip cannot be read, or, after the others are printed, some of several cannot.
        Interrupted: Ctrl-C; what was printed stays.
    """
    num_failed = num_done = 0
    is_said = as_json
    try:
        with _progress(clips) as on_heard:
            for clip, transcript in zip(clips, transcriber.transcribe(clips, on_heard), strict=True):
                num_done += 1
                name = f"{_in_one_field(clip)}\t" if has_names else ""
                if isinstance(clip, Clip) and isinstance(transcript, Transcript):
                    if not is_said and (lacking := _lacks(transcript.text)):
                        is_said = True
                        print(f"warning: standard output is {lacking}, which lacks letters of the transcripts; they "
                              "are written as codes. PYTHONIOENCODING=utf-8 keeps them.", file=sys.stderr)
                    print(_json(clip, transcript) if as_json else name + transcript.text, flush=True)
                elif isinstance(transcript, AudioError) and len(clips) > 1:
                    num_failed += 1
                    if not as_json:
                        print(name, flush=True)
                    print(f"error: {transcript}", file=sys.stderr, flush=True)
                elif isinstance(transcript, AudioError):
                    raise transcript
    except KeyboardInterrupt:
        of = counted(len(clips), "clip")
        raise Interrupted(f"interrupted after {num_done} of {of}; what was printed is valid") from None
    except BrokenPipeError:  # the reader has closed the pipe; the interpreter's flush at exit must not fail either
        leave_reader()
        return
    if num_failed:
        raise AudioError(f"{num_failed} of {len(clips)} clips could not be transcribed; the reasons are above.")


def are_named(arguments: Sequence[str]) -> bool:
    """Whether the output needs paths, because the arguments are more than a single audio file."""
    return len(arguments) > 1 or not is_single(arguments[0])


def _in_one_field(clip: Clip | AudioError) -> str:
    """A clip's path with tabs and line breaks escaped; empty for a list that cannot be read."""
    path = clip.path if isinstance(clip, Clip) else ""
    for character, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        path = path.replace(character, escaped)
    return path.encode(errors="backslashreplace").decode()


def _json(clip: Clip, transcript: Transcript) -> str:
    """One line; times count from the start of the clip, which is `offset_s` into the file if that is not 0."""
    words = [{"word": word.text, "start_s": round(word.start_s, 3), "end_s": round(word.end_s, 3),
              "confidence": round(word.confidence, 4)} for word in transcript.words]
    stretch = {"offset_s": clip.offset_s} if clip.offset_s else {}
    values = {"path": clip.path, **stretch, "duration_s": round(transcript.duration_s, 3), "text": transcript.text,
              "words": words}
    line = json.dumps(values, ensure_ascii=False).encode(errors="backslashreplace").decode()  # a path may not be UTF-8
    return line if _lacks(line) is None else json.dumps(values)  # JSON's own escapes, which every encoding has


def _lacks(text: str) -> str | None:
    """The name of standard output's encoding, if it lacks letters of a text."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, "strict" if encoding.lower() != "utf-8" else "surrogatepass")
    except UnicodeEncodeError:
        return encoding
    return None


@contextmanager
def _progress(clips: Sequence[Clip | AudioError]) -> Iterator[Callable[[float], None]]:
    """A progress bar with an ETA on a terminal, after QUIET_S; yields a function of seconds transcribed."""
    if not sys.stderr.isatty():
        yield lambda seconds: None
        return
    columns = (TextColumn("transcribing"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f} s"),
               TimeRemainingColumn())
    # Text for a pipe must reach the pipe: only output to the same terminal is written around the bar, and it stays one
    # line, so that it can be copied as one.
    progress = Progress(*columns, console=Console(stderr=True, soft_wrap=True), transient=True,
                        redirect_stdout=sys.stdout.isatty())
    bar = progress.add_task("transcribing", total=sum(map(_duration_s, clips)))
    began = time.monotonic()

    def on_heard(seconds: float) -> None:
        progress.advance(bar, seconds)
        if time.monotonic() - began > QUIET_S:
            progress.start()

    try:
        yield on_heard
    finally:
        progress.stop()


def _duration_s(clip: Clip | AudioError) -> float:
    try:
        return duration_of(clip.path, clip.offset_s, clip.duration_s) if isinstance(clip, Clip) else 0.0
    except AudioError:
        return 0.0  # its error is printed in place of its transcript
