"""A study of a speech recogniser, from the corpora and the source that it names to its exported model."""

from collections.abc import Mapping

from corpora.features import FeatureStore
from search.candidate import Candidate
from search.config import ResolvedConfig, StudyConfig
from search.records.fingerprints import Identity
from search.records.measured import Look
from search.records.run_folder import RunFolder
from search.speech import embedded_study, evaluate_test, export
from search.speech.catalog import located
from search.speech.features import Inputs
from search.speech.study_inputs import SpeechPrepared, identify, open_inputs, prepare
from search.trials.context import TrialContext


class SpeechStudy:
    """Fine-tuning a QuartzNet: the first StudyTask."""

    store: FeatureStore

    def __init__(self, config: ResolvedConfig, inputs: Inputs | None) -> None:
        self._config, self._inputs = config, inputs

    @staticmethod
    def locate(config: StudyConfig) -> StudyConfig:
        """Corpora, source and other studies by absolute paths."""
        return located(config)

    @classmethod
    def open(cls, config: ResolvedConfig) -> "SpeechStudy":
        """Open the space, the source and the corpora; what is given by name is downloaded into the cache.

        Raises:
            ConfigError, NemoFileError, CorpusError, DownloadError: one of them cannot be downloaded or read.
        """
        return cls(config, open_inputs(config))

    def identify(self) -> Identity:
        """Keys of the corpora, the source, the space and the language."""
        return identify(self._config, self._inputs)

    def prepare(self, run: RunFolder) -> SpeechPrepared:
        """Make the embedded default's inputs if nothing was named, then features, vocabularies and the corpus report.

        Raises:
            CorpusError: test and train share a speaker or a sentence, and it is not allowed.
        """
        prepared = prepare(run, self._inputs or embedded_study.make_inputs(run.config))
        self._inputs = None  # the store has the utterances too
        self.store = prepared.store
        return prepared

    def evaluate_test(self, run: RunFolder, context: TrialContext, winner: Candidate,
                      look_again: bool) -> Look | None:
        """Error rates of the winner and of the unchanged source, after `prepare`."""
        return evaluate_test.evaluate_test(run, self.store, context, winner, look_again)

    def export(self, run: RunFolder, context: TrialContext, winner: Candidate, cards: Mapping[str, str]) -> None:
        """The recipe, and the model as `.nemo`, ONNX and TorchScript, after `prepare`."""
        export.export_models(run, context, winner, cards)
