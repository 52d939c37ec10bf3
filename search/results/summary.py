"""The figures of a finished study, as data and as the plain-text card that travels with the model."""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from corpora.reference import Reference
from search.candidate import Candidate
from search.capacity.concurrency import kept
from search.records.job import is_part
from search.records.measured import (
    Allowed,
    ComparedRecipe,
    DataScaling,
    DevRates,
    Importance,
    Look,
    ReferenceFacts,
    Seconds,
    Spent,
    read,
)
from search.records.run_folder import RunFolder
from search.records.trial_record import records
from search.results.ablation import Variant
from search.results.cautions import TITLES, cautions
from search.results.confirmation import Confirmed
from search.results.data_scaling import scaling_lines
from search.results.importance import importance_line
from search.results.run_summary import RunSummary, StudySummary
from search.results.statistics import Optimism, covered, interval_or_why, optimism, with_interval
from search.speech.evaluate_test import TEST
from search.speech.split_overlap import kept_overlap
from search.trials.budget import Budget, format_duration
from search.wording import counted

OTHER_SPEAKERS = "Intervals are for other clips of the same speakers; other speakers can move a figure by more."
"""On each card, because the clips of a speaker are hard or easy together, and the bootstrap draws clips."""


def summarise(run: RunFolder, rows: list[dict[str, Any]], confirmed: Confirmed, transfer: Sequence[Variant],
              importance: Importance, tested: Look | None, budget: Budget,
              scaling: DataScaling | None = None) -> StudySummary:
    """Collect a study's figures and write them to `summary.json`."""
    winner, seed = confirmed.winner, run.config.seed
    flattery = optimism(run.trials, winner.dev_texts, seed)
    epochs = [record.epochs[-1] for record in records(run.trials) if record.epochs and not is_part(record.id)]
    dev = _dev(winner, flattery, seed)
    summary = StudySummary(
        study=run.name,
        corpus=list(run.config.corpora) or ["embedded default"],
        language=run.config.spoken.code,
        source=run.config.source_called(winner.recipe.transfer.source) or "embedded English",
        warm_start=list(run.config.warm_start),
        reference=read(ReferenceFacts, Reference.load(run.reference).facts()),
        trials=dict(Counter(row["state"] for row in rows)),
        winner=winner.id,
        exported=winner.best_training.id,
        winner_is_hand_recipe=winner.hand_recipe,
        recipe=winner.recipe.flat(),
        dev=dev,
        objective=winner.objective,
        compared={name: ComparedRecipe(trial=other.id, hand_recipe=other.hand_recipe, wer=other.rate("wer"),
                                 wer_by_seed=other.rates("wer"), cer=other.rate("cer"), **difference.figures())
                     for name, (other, difference) in confirmed.comparisons(seed).items()},
        cautions=cautions(winner.objective, dev, tested),
        verdict=confirmed.verdict(seed, flattery.value),
        left_out_by_budget=confirmed.left_out,
        transfer=[variant.figures(winner, seed) for variant in transfer],
        data_scaling=scaling,
        importance=importance,
        test=tested,
        overlap=kept_overlap(run.path),
        packing=kept(run.path),
        spent=budget.amount_spent(),
        budget=budget.amount_allowed(),
        seconds=Seconds(
            study=round(budget.spent().wall_s, 1),
            fit_to_first_step_median=round(median(e.to_first_step_s for e in epochs), 2),
            outside_training_per_trial_median=round(median(e.outside_s for e in epochs), 2),
            training_per_trial_median=round(median(e.train_s for e in epochs), 2),
        ),
    )
    summary.save(run.path)
    return summary


def _dev(winner: Candidate, flattery: Optimism, seed: int) -> DevRates:
    """The winner on the development split, as measured and corrected for having been chosen on it."""
    (wer_low, wer_high), (cer_low, cer_high) = (winner.interval(name, seed) or (None, None) for name in ("wer", "cer"))
    corrected = None if flattery.value is None else winner.rate(winner.objective) + flattery.value
    return DevRates(
        wer=winner.rate("wer"), wer_low=wer_low, wer_high=wer_high, wer_by_seed=winner.rates("wer"),
        cer=winner.rate("cer"), cer_low=cer_low, cer_high=cer_high, cer_by_seed=winner.rates("cer"),
        collapsed=winner.is_collapsed, utterances=sum(bool(text.split()) for text in winner.dev_texts),
        corrected=corrected, chosen_among=flattery.num_trials, why_not_corrected=flattery.why_none)


def card(summary: StudySummary) -> str:
    """The measured figures, as plain text."""
    seconds, reference = summary.seconds, summary.reference
    lines = [
        f"Study {summary.study}: QuartzNet for {summary.language}",
        f"corpus: {', '.join(summary.corpus)}",
        f"source: {summary.source}",
        f"trials: {', '.join(f'{count} {state}' for state, count in summary.trials.items())}",
        "",
        *(f"careful: {said}" for said in summary.cautions),
        f"winner: trial {summary.winner}"
        + (f", the hand recipe {summary.winner_is_hand_recipe}" if summary.winner_is_hand_recipe else ""),
        *_dev_lines(summary.dev, summary.objective),
        f"verdict: {summary.verdict}",
        *_confirmation_lines(summary),
        *card_lines(summary),
        *(f"careful: {said}" for said in summary.overlap.said),
        *scaling_lines(summary.data_scaling, summary.objective),
        importance_line(summary.importance or Importance()),
        "",
        _spent_line(summary.spent, summary.budget),
        f"seconds: {seconds.study} in all; median from fit to the first training step "
        f"{seconds.fit_to_first_step_median}, outside training per trial "
        f"{seconds.outside_training_per_trial_median}, in training {seconds.training_per_trial_median}",
        "WER and CER are corpus ratios on the frozen reference text, greedy decoding, no language model.",
        OTHER_SPEAKERS,
        f"the reference: {reference.dev_clips} dev and {counted(reference.test_clips, 'test clip')}, normaliser "
        f"{reference.normaliser_version}, key {reference.key}",
    ]
    return "\n".join(lines) + "\n"


def _dev_lines(dev: DevRates, objective: str) -> list[str]:
    seeds = dev.wer_by_seed
    interval = interval_or_why(dev, dev.utterances, "development")
    if dev.wer_low is not None:
        interval += f" over {covered(len(seeds))}"
    corrected = f"not corrected: {dev.why_not_corrected}"
    if dev.corrected is not None:
        corrected = (f"{TITLES[objective]} about {dev.corrected:.1%} once corrected for the choice among "
                     f"{dev.chosen_among} trials")
    return [f"dev WER {dev.wer:.1%}, {interval}; by seed {', '.join(f'{wer:.1%}' for wer in seeds)}; "
            f"CER {with_interval(dev, 'cer')}",
            f"it was chosen on this split, so the figure flatters it: {corrected}"]


def _spent_line(spent: Spent, budget: Allowed) -> str:
    """What was spent, resumes included, and the budgets."""
    parts = [f"{format_duration(spent.wall_s or 0.0)} of wall time", f"{spent.gpu_h or 0.0:.2f} GPU hours"]
    of = [format_duration(budget.wall_s) if budget.wall_s else None, f"{budget.gpu_h:.2f}" if budget.gpu_h else None]
    if spent.cost is not None:
        parts.append(f"cost {spent.cost:.2f} at {budget.cost_per_hour:g} an hour")
        of.append(f"{budget.cost:.2f}" if budget.cost else None)
    return "spent, resumes included: " + ", ".join(
        part + (f" (budget {limit})" if limit else "") for part, limit in zip(parts, of, strict=True))


def _confirmation_lines(summary: StudySummary) -> list[str]:
    hand, lines = summary.compared.get("hand_recipe"), []
    if hand:
        title, rate = TITLES[summary.objective], hand.rate(summary.objective)
        lines.append(f"best hand recipe, {hand.hand_recipe}: trial {hand.trial}, dev {title} {rate:.1%}")
    if summary.left_out_by_budget:
        lines.append(f"the budget left no room for: {', '.join(summary.left_out_by_budget)}")
    if summary.transfer:
        lines.append("what transfer gained, by the winner's recipe on one seed at the same budget:")
    for variant in summary.transfer:
        value = variant.rate(summary.objective)
        figure = "not trained" if value is None else f"dev {TITLES[summary.objective]} {value:.1%}"
        lines.append(f"  {variant.variant}: {figure}; {variant.said}")
    return lines


def earlier_winner(summary: RunSummary | None) -> str | None:
    """The earlier winner that the test figures belong to, if any: test is not read again for each new winner."""
    look = summary.test if summary else None
    return look.trial if summary and look and look.trial != summary.exported else None


def card_lines(summary: RunSummary) -> list[str]:
    """The figures on test, in words."""
    look = summary.test
    if not look:
        return ["test: the corpus has no test split"]
    whose = "test, read once" if look.times_read == 1 else f"test was read {look.times_read} times; the last"
    if earlier := earlier_winner(summary):
        whose += f", of {earlier}, an earlier winner"
    lines = []
    for rates, label in ((look.winner, whose), (look.source_as_it_stands, "the unchanged source, on test")):
        if rates:
            interval = interval_or_why(rates, rates.num_utterances, TEST)
            lines.append(f"{label}: WER {rates.wer:.1%} ({interval}), CER {with_interval(rates, 'cer')}, "
                         f"accent-insensitive WER {rates.folded_wer:.1%}, {counted(look.clips, 'clip')}")
    return lines
