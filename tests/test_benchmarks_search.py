"""The cost of a search: what is read, what is modelled, when the best recipe counts as found, and what it cost."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import searchers
from contenders import CONTENDERS, Tuned, cuarzo, stock_asha
from optuna.trial import TrialState, create_trial
from searchers import Search
from surrogate import DIVERGED_WER, Curves, Draw, Surrogate, Training
from variants import LEAST_AT_RUNG, VARIANTS, DrawsByRung

from spaces import synthetic

ROOT = Path(__file__).resolve().parents[1]

EPOCHS = 27
RUNGS = (1, 3, 9)


class World:
    """Stand-in learning curves over spaces/synthetic.py, another landscape for each seed.

    Each optimizer has a learning rate that fits it, lower for longer steps; what the schedule has not annealed yet
    hides the value of a recipe; pieces start slower and end lower; what is kept of the source helps early.
    """

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.best_lr = {"novograd": random.uniform(np.log(8e-3), np.log(5e-2)),
                        "adamw": random.uniform(np.log(2e-3), np.log(1.5e-2))}
        self.floor = {name: random.uniform(-1.25, -1.21) for name in ("novograd", "adamw")}
        self.scale = random.uniform(0.2, 0.5)
        self.pieces = random.uniform(-0.1, 0.1)
        self.folded = random.uniform(0.0, 0.1)
        self.penalty = random.uniform(0.25, 0.5)
        self.keep = random.uniform(-0.06, 0.06)
        self.ratio = random.uniform(np.log(0.15), np.log(0.9))
        self.noise = random.uniform(0.008, 0.02)

    def means(self, params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log WER (raw, averaged, annealed) by epoch."""
        epochs, name = np.arange(1, EPOCHS + 1), params["optimizer"]
        off = np.log(params[f"{name}.lr"]) - self.best_lr[name] - 0.3 * (params["audio_s_per_step"] == 20)
        pieces, keep = params["vocabulary"] == "bpe", params["transfer.batchnorm"] == "keep"
        away = np.log(params["transfer.encoder_lr_ratio"]) - self.ratio - 0.4 * keep
        level = self.floor[name] + self.scale * (0.16 * off**2 + (0.3 * off**3 if off > 0 else 0) + 0.06 * away**2
                                               + self.keep * keep + self.pieces * pieces
                 + self.folded * (params["vocabulary"] == "characters_folded")
                 + 0.05 * (params.get("transfer.decoder", "fresh") == "fresh")
                 + 0.5 * (params["schedule.warmup_share"] - 0.1 - 0.1 * (name == "novograd"))**2)
        rate = 0.25 * np.exp(0.3 * min(off, 0.5)) / (1 + 0.3 * pieces)
        late = params.get("transfer.frozen_epochs", 0) * 0.6 + (params.get("transfer.decoder") != "letters") * 0.5
        done = epochs / EPOCHS
        warm = np.minimum(1, done / max(params["schedule.warmup_share"], 1e-3))
        rest = np.clip((done - params["schedule.warmup_share"]) / (1 - params["schedule.warmup_share"]), 0, 1)
        lr = warm * {"cosine": (1 + np.cos(np.pi * rest)) / 2, "noam": np.minimum(1, 0.1 / np.sqrt(rest + 0.01)),
                     "warmup_hold_decay": 1 - np.clip((rest - 0.3) / 0.7, 0, 1)**2, "none": np.ones(EPOCHS)
                     }[params["schedule"]]
        learnt = level + (0.0 - level) * np.exp(-rate * np.maximum(epochs - late, 0.2))
        high = self.penalty * lr * (1 + 0.5 * off) * (1 - np.exp(-rate * epochs))
        lag = 0.3 * np.exp(-0.4 * epochs)
        return tuple(np.minimum(curve, 0.1) for curve in (learnt + high, learnt + 0.35 * high + lag,
                                                          learnt + 0.15 * high))

    def trial(self, params: dict[str, Any], seed: int, random: np.random.Generator) -> dict[str, Any]:
        """A recording as benchmarks/record.py writes it."""
        whole, drift = random.normal(0, self.noise), np.zeros(EPOCHS)
        for epoch in range(1, EPOCHS):
            drift[epoch] = 0.8 * drift[epoch - 1] + random.normal(0, self.noise / 2)
        raw, averaged, annealed = (np.exp(mean + whole + drift + random.normal(0, self.noise / 3, EPOCHS))
                                   for mean in self.means(params))
        pace_s = (5.0 * (0.8 if params["vocabulary"] == "bpe" else 1) * (0.8 if params["audio_s_per_step"] == 20 else 1)
                  * np.exp(random.normal(0, 0.03)))
        passes = np.arange(1, EPOCHS + 1) - 0.5 * params.get("transfer.frozen_epochs", 0)
        return {"params": params, "seed": seed, "epochs": [
            {"raw": raw[i], "averaged": averaged[i], "annealed": annealed[i] if i + 1 in RUNGS else None,
             "train_s": pace_s * passes[i]} for i in range(EPOCHS)]}


def write_world(path: Path, seed: int, num_trials: int = 150, num_repeated: int = 8) -> Path:
    """Curves of random recipes, the first of which were trained on three seeds."""
    world, random = World(seed), np.random.default_rng(seed)
    trials = []
    for number in range(num_trials):
        draw = Draw(random)
        synthetic.sample(draw, max_epochs=EPOCHS, has_source=True)  # type: ignore[arg-type]
        trials += [world.trial(draw.params, again, random) for again in range(3 if number < num_repeated else 1)]
    content = json.dumps({"version": 1, "corpus": "stand-in", "space": "synthetic", "has_source": True,
                          "max_epochs": EPOCHS, "grace_epochs": 1, "reduction_factor": 3, "trials": trials}).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(scope="module")
def curves_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("curves") / "world.json.gz", seed=1)


@pytest.fixture(scope="module")
def surrogate(curves_file: Path) -> Surrogate:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Surrogate(Curves.load(curves_file))


# --- the file -------------------------------------------------------------------------------------------------------


def changed(curves_file: Path, path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(json.loads(gzip.decompress(curves_file.read_bytes())) | changes))
    return path


@pytest.mark.parametrize(("changes", "says"), [
    ({"space": "french"}, "space is 'french'; it must be one of"),
    ({"trials": []}, "holds 0 trials with an epoch; at least 20 are needed"),
    ({"trials": [{"params": {}, "epochs": [{"raw": 1, "averaged": 1, "annealed": None, "train_s": 1}]}]},
     "a trial has 1 epochs of 27 and no reason"),
])
def test_curves_of_another_kind_are_refused_in_one_line(curves_file: Path, tmp_path: Path, changes: dict[str, Any],
                                                        says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert searchers.main(["--curves", str(changed(curves_file, tmp_path / "curves.json", **changes))]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(str(tmp_path / "curves.json")) and says in line


def test_failed_trial_goes_on_as_diverged_at_its_pace(curves_file: Path, tmp_path: Path) -> None:
    trials = json.loads(gzip.decompress(curves_file.read_bytes()))["trials"]
    trials[3] |= {"epochs": trials[3]["epochs"][:2], "reason": "the training loss is nan"}
    found = Curves.load(changed(curves_file, tmp_path / "curves.json", trials=trials))
    assert found.wers.shape == (len(trials), 3, EPOCHS)
    assert (found.wers[3, :, 2:] == DIVERGED_WER).all() and (found.wers[3, :, :2] < DIVERGED_WER).any()
    assert found.seconds[3, -1] == pytest.approx(trials[3]["epochs"][1]["train_s"] / 2 * EPOCHS)


def test_seeds_and_lanes_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--seeds", "--lanes", "--grace"):
        with pytest.raises(SystemExit):
            searchers.arguments(["--curves", "x", flag, "0"])
        assert f"{flag} is 0; it must be at least 1" in capsys.readouterr().err


# --- the surrogate --------------------------------------------------------------------------------------------------


def test_surrogate_knows_recipes_that_were_not_recorded(surrogate: Surrogate) -> None:
    world, recipes = World(1), surrogate.draw(np.random.default_rng(5), 300)
    true = np.array([min(mean.min() for mean in world.means(params)[:2]) for params in recipes])
    error = np.log(surrogate.true_wers(recipes)) - true
    assert 1 - error.var() / true.var() > 0.9 and abs(error.mean()) < 0.02


def test_noise_has_the_size_of_other_seeds_and_holds_on_along_epochs(surrogate: Surrogate) -> None:
    random, params = np.random.default_rng(0), surrogate.best
    logs = np.log([surrogate.train(params, random).wers[0] for _ in range(400)])
    assert logs[:, 5].std() == pytest.approx(np.hypot(World(1).noise, World(1).noise * 0.9), rel=0.5)
    assert np.corrcoef(logs[:, 10], logs[:, 11])[0, 1] > 0.5


def test_training_is_decided_by_recipe_and_seed(surrogate: Surrogate) -> None:
    one, same, other = (surrogate.train(surrogate.best, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.wers == same.wers).all() and (one.wers != other.wers).any()
    assert one.true_wer == other.true_wer == pytest.approx(surrogate.best_wer)
    assert (np.diff(one.seconds) >= 0).all()


def test_no_recipe_drawn_is_better_than_the_best_known(surrogate: Surrogate) -> None:
    assert surrogate.best_wer <= surrogate.true_wers(surrogate.draw(np.random.default_rng(7), 3000)).min()


def test_without_repeated_recipes_the_noise_is_what_the_model_misses(tmp_path: Path) -> None:
    found = Surrogate(Curves.load(write_world(tmp_path / "world.json", seed=1, num_trials=60, num_repeated=0)))
    logs = np.log([found.train(found.best, np.random.default_rng(seed)).wers[0] for seed in range(200)])
    assert not found.has_repeats and logs[:, -1].std() > 0.01


def test_other_seeds_of_a_recipe_do_not_count_as_foreknowledge_of_it(curves_file: Path, tmp_path: Path) -> None:
    trials = json.loads(gzip.decompress(curves_file.read_bytes()))["trials"]
    once = list({json.dumps(trial["params"]): trial for trial in trials}.values())[:40]
    order = np.random.default_rng(0).permutation(len(once))
    strangers = [once[i] | {"epochs": once[other]["epochs"]} for i, other in enumerate(order)] * 2
    found = Surrogate(Curves.load(changed(curves_file, tmp_path / "curves.json", trials=strangers)))
    assert found.score < 0.3, "what a recipe gives has nothing to do with it, but each is there twice"


# --- a search in simulated time -------------------------------------------------------------------------------------


class Played:
    """Trainings in the order of a list: (true WER, WER that is seen, seconds of each of two epochs)."""

    best_wer = 0.3

    def __init__(self, *trainings: tuple[float, float, float]) -> None:
        self._rest = list(trainings)

    def train(self, params: Any, random: Any) -> Training:
        true, seen, epoch_s = self._rest.pop(0) if self._rest else (0.9, 0.9, 1.0)
        return Training(wers=np.full((3, 2), seen), seconds=epoch_s * np.array([1.0, 2.0]), true_wer=true)


def play(*trainings: tuple[float, float, float], stops: str = "", lanes: int = 1) -> Search:
    contender = SimpleNamespace(begin=lambda name: {}, report=lambda name, epoch, wer: epoch < 2 and name not in stops)
    return searchers.search(contender, Played(*trainings), lanes=lanes, seed=0, limit_s=100.0)  # type: ignore[arg-type]


def test_cost_is_the_seconds_of_all_lanes_until_the_best_recipe_is_found() -> None:
    assert play((0.5, 0.5, 1.0), (0.305, 0.31, 2.0)).found_s == 1.0 * 2 + 2.0 * 2
    two = play((0.5, 0.5, 5.0), (0.4, 0.4, 1.0), (0.305, 0.31, 1.0), lanes=2)  # the second lane trains two
    assert two.found_s == 2 * 4.0 and two.true_wers == [0.4, 0.305] and two.costs_s == [4.0, 8.0]


def test_good_recipe_that_does_not_look_best_is_not_found() -> None:
    assert play((0.5, 0.28, 1.0), (0.305, 0.31, 1.0)).found_s == float("inf")


def test_good_recipe_that_was_stopped_is_not_found() -> None:
    stopped = play((0.305, 0.28, 1.0), (0.303, 0.31, 1.0), stops="0")
    assert stopped.found_s == 1.0 + 2.0 and stopped.costs_s == [3.0]


def states(study: optuna.Study) -> set[TrialState]:
    return {trial.state for trial in study.trials}


def test_stock_searcher_tells_stopped_trials_as_complete_and_cuarzo_as_pruned(surrogate: Surrogate) -> None:
    told = {}
    for make in (stock_asha, cuarzo):
        contender = make(surrogate, 0)
        assert isinstance(contender, Tuned)
        searchers.search(contender, surrogate, lanes=3, seed=0, limit_s=8 * 130.0)
        searcher: Any = contender.searcher
        told[make] = searcher._ot_study if make is stock_asha else searcher._study
    lengths = [len(trial.intermediate_values) for trial in told[stock_asha].trials]
    assert states(told[stock_asha]) == {TrialState.COMPLETE, TrialState.RUNNING} and 0 in lengths
    assert states(told[cuarzo]) == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING}
    hand = list(synthetic.baseline(max_epochs=EPOCHS, has_source=True).values())
    assert [trial.params for trial in told[cuarzo].trials[:len(hand)]] == hand


def test_same_seed_gives_the_same_search(surrogate: Surrogate) -> None:
    for make in CONTENDERS.values():
        one, same = (searchers.search(make(surrogate, 3), surrogate, lanes=2, seed=3, limit_s=5 * 130.0)
                     for _ in range(2))
        assert (one.costs_s, one.true_wers, one.num_trials) == (same.costs_s, same.true_wers, same.num_trials)


def test_every_variant_proposes_something_else_than_cuarzo(surrogate: Surrogate) -> None:
    def proposed(make: Any) -> list[Any]:
        contender = make(surrogate, 0)
        found = []
        for number in range(45):
            params = contender.begin(str(number))
            training = surrogate.train(params, np.random.default_rng(number))
            last = next((e for e in range(1, EPOCHS + 1)
                         if not contender.report(str(number), e, float(training.wers[1, e - 1]))), EPOCHS)
            found.append((params, last))
        return found

    plain = proposed(cuarzo)
    assert [title for title, make in VARIANTS.items() if proposed(make) == plain] == []


def test_rung_that_tells_good_from_bad_is_the_highest_that_enough_trials_reached() -> None:
    drawn = DrawsByRung([], seed=0, rungs=(1, 3))
    lengths = [1] * 10 + [3] * LEAST_AT_RUNG
    judged = []
    for number, length in enumerate(lengths):
        values = {epoch: 0.9 - 0.1 * epoch for epoch in range(1, length + 1)}
        trial = create_trial(state=TrialState.PRUNED, intermediate_values=values)
        trial.number = number
        drawn.observe(trial)
        judged.append([known.value for known in drawn._memory.trials if known.state == TrialState.COMPLETE])
    assert judged[-2] == [pytest.approx(0.8)] * (len(lengths) - 1)
    assert judged[-1] == [pytest.approx(0.6)] * LEAST_AT_RUNG


# --- what is shown --------------------------------------------------------------------------------------------------


def test_table_has_medians_and_quartiles_and_says_what_was_not_found() -> None:
    searches = {"one": [Search(found_s=1000.0 * i, num_trials=i) for i in (1, 2, 3, 4, 5)],
                "other": [Search(found_s=300.0)] * 3 + [Search()] * 2, "none": [Search()] * 5}
    assert searchers.table(searches)[2:] == [
        "| one | 5 of 5 | 3,000 | 2,000 to 4,000 | 1.00 | 3 |",
        "| other | 3 of 5 | 300 | 300 to not found | 0.10 | 0 |",
        "| none | 0 of 5 | not found | not found to not found | ? | 0 |"]


def test_plot_shows_the_incumbent_from_its_cost_on() -> None:
    found = [Search(costs_s=[10.0, 100.0], true_wers=[0.6, 0.3])] * 3
    band, line, *rest = searchers.draw_plot({"one": found}, best_wer=0.3).data
    assert not rest and line.name == "one" and len(band.x) == 2 * len(line.x)
    assert {round(value) for value in line.y} <= {233, 100, 0} and line.y[-1] == 0
    assert all(value == pytest.approx(100) for cost, value in zip(line.x, line.y, strict=True) if 10 < cost < 99)


def test_command_prints_the_table_and_draws(curves_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(searchers, "MAX_TRAININGS", 4)
    monkeypatch.setattr(searchers, "MAX_RANDOM", 40)
    plot = tmp_path / "cost.html"
    assert searchers.main(["--curves", str(curves_file), "--seeds", "2", "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "166 recorded trials" in printed and all(f"\n| {title} | " in printed for title in CONTENDERS)
    assert "seconds of all lanes" in plot.read_text(encoding="utf-8")


def test_neighbours_of_the_script_find_the_package_of_its_name() -> None:
    """A script's own folder comes first on its path, and `search.py` lies there."""
    code = "import search, search.records.fingerprints; print(search.__file__, search.records.fingerprints.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True,
                          timeout=60, env={"PYTHONPATH": ""})
    found = [str(ROOT / "benchmarks" / "search.py"), str(ROOT / "search" / "records" / "fingerprints.py")]
    assert done.stdout.split() == found, done
