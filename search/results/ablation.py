"""What transfer gained: the winner's recipe at equal budget with other weights carried over, or none."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from search.candidate import Candidate
from search.records.job import Job
from search.records.measured import Transfer
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord, is_complete, read_failure, records
from search.results.confirmation import Confirmed, RemainingBudget, confirm, run_left
from search.results.statistics import Difference
from search.trials.interrupt import Interrupt
from spaces.recipe import Recipe, TransferRecipe, VocabularyRecipe

NAMES = {"scratch": "from scratch", "encoder": "encoder only", "letters": "letters kept"}
"""The variants by the suffix of their folder's name; the last one is given up first."""

NO_ROOM = "the budget leaves no room for it"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of the winner's recipe, trained at the same number of epochs on the same seed."""

    name: str
    trained: Candidate | None
    """Its training, the winner's own if the variant equals it; None if there is none."""
    reason: str | None = None
    """Why it was not trained to the end."""

    def figures(self, winner: Candidate, seed: int) -> Transfer:
        """As in the summary; the difference is the winner's rate on this seed minus the variant's."""
        if self.trained is None:
            return Transfer(variant=self.name, is_winner=False, reason=self.reason, said=self.reason)
        found = Transfer(variant=self.name, is_winner=self.trained.recipe == winner.recipe, trial=self.trained.id,
                         wer=self.trained.rate("wer"), cer=self.trained.rate("cer"), said="the winner is this one")
        if found.is_winner:
            return found
        difference = Difference.between(on_its_seed(winner), self.trained, seed)
        return replace(found, said=f"the winner is {difference.said('this')}", **difference.figures())


def ablate(confirmed: Confirmed, run: RunFolder, room: RemainingBudget, interrupt: Interrupt,
           why_infeasible: Callable[[Recipe], str | None]) -> tuple[Confirmed, list[Variant]]:
    """Train the variants that are not the winner itself; one that cannot be trained is named, with the reason.

    A variant that is better than the winner is confirmed on the other seeds too, and becomes the winner if it is better
    there as well. No variants if the study has no ablation, or the winner of the search started from random weights.
    """
    tried: list[Variant] = []
    while run.config.ablation and (winner := confirmed.winner).recipe.transfer.use_source:
        tried = _train_variants(winner, run, room, interrupt, why_infeasible)
        best = min((variant.trained for variant in tried if variant.trained), key=lambda trained: trained.score,
                   default=winner)
        if best.score >= on_its_seed(winner).score:
            break
        print(f"{best.id} is better than the winner it was made of, {winner.id}, and is confirmed too", flush=True)
        confirmed = confirmed.joined(confirm(best.trainings, run, room, interrupt, {}))
        if confirmed.winner.recipe == winner.recipe:
            break
    return confirmed, tried


def _train_variants(winner: Candidate, run: RunFolder, room: RemainingBudget, interrupt: Interrupt,
                    why_infeasible: Callable[[Recipe], str | None]) -> list[Variant]:
    seed, recipes = winner.trainings[0].seed, variants(winner.recipe)
    known = {end: record.id for record in records(room.context.folder) for end, recipe in recipes.items()
             if record.recipe == recipe and record.seed == seed and record.is_complete}
    known |= {end: winner.id for end, recipe in recipes.items() if recipe == winner.recipe}
    unknown = {end: recipe for end, recipe in recipes.items() if end not in known}
    reasons = {end: reason for end, recipe in unknown.items() if (reason := why_infeasible(recipe))}
    jobs = {end: Job(id=f"{winner.id}-{end}", recipe=recipe, seed=seed) for end, recipe in unknown.items()
            if end not in reasons}
    while not room.is_enough_for(list(jobs.values())):
        reasons[jobs.popitem()[0]] = NO_ROOM
    run_left(list(jobs.values()), room, interrupt, run)
    found = []
    for end, name in NAMES.items():
        folder = room.context.folder / known.get(end, f"{winner.id}-{end}")
        if recipes[end] == winner.recipe:
            found.append(Variant(name=name, trained=on_its_seed(winner)))
        elif end in known or (end in jobs and is_complete(folder)):
            trained = replace(winner, recipe=recipes[end], trainings=[TrialRecord.load(folder)], hand_recipe=None)
            found.append(Variant(name=name, trained=trained))
        else:
            reason = reasons.get(end) or read_failure(folder) or "its process was lost and did not come back"
            print(f"{winner.id} {name} is left out: {reason}", flush=True)
            found.append(Variant(name=name, trained=None, reason=reason))
    return found


def on_its_seed(winner: Candidate) -> Candidate:
    """The winner as found in the search, which its variants are compared with."""
    return replace(winner, trainings=winner.trainings[:1])


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe from random weights, with only the encoder, and with the letters, which needs characters.

    A recipe that starts from a source is itself one of the last two.
    """
    has_letters = recipe.vocabulary.kind in ("characters", "characters_folded")
    return {"scratch": replace(recipe, transfer=TransferRecipe(use_source=False, decoder="fresh")),
            "encoder": replace(recipe, transfer=replace(recipe.transfer, decoder="fresh")),
            "letters": replace(recipe, transfer=replace(recipe.transfer, decoder="letters"),
                               vocabulary=recipe.vocabulary if has_letters else VocabularyRecipe(kind="characters"))}
