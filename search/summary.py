"""The figures of a finished study, as data and as the plain-text card that travels with the model."""

from collections import Counter
from statistics import median
from typing import Any

from search.budget import Budget, clock
from search.confirm import Confirmed
from search.folder import RunFolder
from search.packing import kept
from search.record import records, write_json


def summarise(run: RunFolder, rows: list[dict[str, Any]], confirmed: Confirmed,
              tested: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """Collect a study's figures and write them to `summary.json`."""
    winner, seed = confirmed.winner, run.config.seed
    low, high = confirmed.interval(seed)
    hand = [row["best_wer"] for row in rows if row["hand_recipe"] and row["state"] == "complete"]
    epochs = [record.epochs[-1] for record in records(run.trials) if record.epochs]
    summary: dict[str, Any] = {
        "study": run.name,
        "corpus": list(run.config.corpus) or ["embedded default"],
        "language": run.config.language,
        "source": run.config.source or "embedded English",
        "trials": dict(Counter(row["state"] for row in rows)),
        "winner": winner.id,
        "exported": winner.best_training.id,
        "winner_is_hand_recipe": next((row["hand_recipe"] for row in rows if row["id"] == winner.id), None),
        "recipe": winner.recipe.flat(),
        "dev": {"wer": winner.wer, "wer_by_seed": winner.wers, "wer_low": low, "wer_high": high,
                "cer": winner.best_training.best.cer if winner.best_training.best else None},
        "verdict": confirmed.verdict(seed),
        "left_out_by_budget": confirmed.left_out,
        "best_hand_recipe_dev_wer": min(hand, default=None),
        "scratch_dev_wer": confirmed.scratch.best.wer if confirmed.scratch and confirmed.scratch.best else None,
        "test": {name: value for name, value in tested.items() if name != "examples"},
        "packing": kept(run.path),
        **budget.figures(),
        "seconds": {
            "study": round(budget.spent().wall_s, 1),
            "fit_to_first_step_median": round(median(e.to_first_step_s for e in epochs), 2),
            "outside_training_per_trial_median": round(median(e.outside_s for e in epochs), 2),
            "training_per_trial_median": round(median(e.train_s for e in epochs), 2),
        },
    }
    write_json(run.path / "summary.json", summary)
    return summary


def card(summary: dict[str, Any]) -> str:
    """What was measured, for a person."""
    dev, test, seconds = summary["dev"], summary["test"], summary["seconds"]
    seeds = ", ".join(f"{wer:.1%}" for wer in dev["wer_by_seed"])
    lines = [
        f"Study {summary['study']}: QuartzNet for {summary['language']}",
        f"corpus: {', '.join(summary['corpus'])}",
        f"source: {summary['source']}",
        f"trials: {', '.join(f'{count} {state}' for state, count in summary['trials'].items())}",
        "",
        f"winner: trial {summary['winner']}"
        + (f", the hand recipe {summary['winner_is_hand_recipe']}" if summary["winner_is_hand_recipe"] else ""),
        f"dev WER {dev['wer']:.1%}, 95 % interval {dev['wer_low']:.1%} to {dev['wer_high']:.1%}, by seed {seeds}; it "
        "was chosen on this split, so the figure flatters it",
        f"verdict: {summary['verdict']}",
        *_confirmation_lines(summary),
        *_test_lines(test, summary["exported"]),
        "",
        _spent_line(summary["spent"], summary["budget"]),
        f"seconds: {seconds['study']} in all; median from fit to the first training step "
        f"{seconds['fit_to_first_step_median']}, outside training per trial "
        f"{seconds['outside_training_per_trial_median']}, in training {seconds['training_per_trial_median']}",
        "WER and CER are corpus ratios on the frozen reference text, greedy decoding, no language model.",
    ]
    return "\n".join(lines) + "\n"


def _spent_line(spent: dict[str, float | None], budget: dict[str, float | None]) -> str:
    """What was spent, resumes included, and of how much."""
    parts = [f"{clock(spent['wall_s'] or 0.0)} of wall time", f"{spent['gpu_h'] or 0.0:.2f} GPU hours"]
    of = [clock(budget["wall_s"]) if budget["wall_s"] else None, f"{budget['gpu_h']:.2f}" if budget["gpu_h"] else None]
    if spent["cost"] is not None:
        parts.append(f"cost {spent['cost']:.2f} at {budget['cost_per_hour']:g} an hour")
        of.append(f"{budget['cost']:.2f}" if budget["cost"] else None)
    return "spent, resumes included: " + ", ".join(
        part + (f" (budget {limit})" if limit else "") for part, limit in zip(parts, of, strict=True))


def _confirmation_lines(summary: dict[str, Any]) -> list[str]:
    scratch, hand = summary["scratch_dev_wer"], summary["best_hand_recipe_dev_wer"]
    lines = []
    if summary["left_out_by_budget"]:
        lines.append(f"the budget left no room for: {', '.join(summary['left_out_by_budget'])}")
    if scratch is not None:
        lines.append(f"what transfer bought: dev WER {summary['dev']['wer']:.1%} with the source, {scratch:.1%} with "
                     "the same recipe and budget from scratch")
    if hand is not None:
        lines.append(f"best hand recipe that ran to the end: dev WER {hand:.1%} on one seed")
    return lines


def _test_lines(test: dict[str, Any], exported: str) -> list[str]:
    if not test:
        return ["test: the corpus has no test split"]
    read = "test, read once" if test["trial"] == exported else f"test, read once, of {test['trial']}, an earlier winner"
    lines = []
    for name, label in (("winner", read), ("source_as_it_stands", "the source as it stands, on test")):
        if name in test:
            t = test[name]
            lines.append(f"{label}: WER {t['wer']:.1%} ({t['wer_low']:.1%} to {t['wer_high']:.1%}), CER "
                         f"{t['cer']:.1%}, accent-insensitive WER {t['folded_wer']:.1%}, {test['clips']} clips")
    return lines
