"""Write a recipe as the YAML of NeMo's training scripts."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from files.atomic import write_aside
from models.augment import DROPS
from models.frontend import FrontendConfig
from models.nemo import WRITTEN_NEMO_VERSION, model_config, tokenizer_files
from models.quartznet import QuartzNetConfig
from models.vocabulary import CharacterVocabulary, PieceVocabulary, Vocabulary
from spaces.recipe import OptimizerRecipe, Recipe, ScheduleName, ScheduleRecipe, TrainingRecipe

TOKENIZER_FOLDER = "nemo_tokenizer"
"""Next to the YAML: what NeMo needs of a vocabulary of pieces."""
_MISSING = "???"  # OmegaConf's mark for a mandatory value
_SCHEDULERS: dict[ScheduleName, str] = {
    "cosine": "CosineAnnealing", "polynomial": "PolynomialDecayAnnealing", "noam": "InverseSquareRootAnnealing",
    "warmup_hold_decay": "PolynomialHoldDecayAnnealing", "none": "WarmupPolicy"}
"""Ours rise to the configured rate; so does NeMo's InverseSquareRootAnnealing, unlike its NoamAnnealing."""
_NEMO_OPTIMIZERS = ("novograd", "adamw")
_TARGETS = {"lion": "pytorch_optimizer.Lion", "lamb": "pytorch_optimizer.Lamb"}


def write_nemo_recipe(path: str | os.PathLike[str], recipe: Recipe, frontend: FrontendConfig, network: QuartzNetConfig,
                      vocabulary: Vocabulary, *, precision: str) -> None:
    """Write the configuration of NeMo's `speech_to_text_ctc.py`, or of its `_bpe` for pieces.

    Comments at its head say what NeMo cannot do. Pieces are written to TOKENIZER_FOLDER next to it. `precision` is a
    Lightning precision. The YAML is written aside and renamed.
    """
    target = Path(path)
    if isinstance(vocabulary, PieceVocabulary):
        folder = target.with_name(TOKENIZER_FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in tokenizer_files(vocabulary).items():
            write_aside(folder / name, content)
    head = "".join(f"# {line}".rstrip() + "\n" for line in _head(recipe, frontend, vocabulary))
    config = nemo_recipe(recipe, frontend, network, vocabulary, precision=precision)
    write_aside(target, (head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)).encode())


def nemo_recipe(recipe: Recipe, frontend: FrontendConfig, network: QuartzNetConfig, vocabulary: Vocabulary, *,
                precision: str) -> dict[str, Any]:
    """The configuration as plain values; `???` marks what the reader must fill in."""
    blocks = tuple(replace(block, dropout=recipe.training.dropout) for block in network.blocks)
    model = model_config(frontend, replace(network, blocks=blocks), vocabulary)
    is_pieces = isinstance(vocabulary, PieceVocabulary)
    if is_pieces:  # NeMo takes the number and the names from the tokenizer
        model["tokenizer"] = {"dir": TOKENIZER_FOLDER, "type": "bpe"}
        model["decoder"] |= {"num_classes": -1, "vocabulary": []}
    else:
        model["decoder"]["vocabulary"] = "${model.labels}"
    for name in ("target", "nemo_version", "cuarzo"):
        del model[name]
    data = {"manifest_filepath": _MISSING, "sample_rate": model["sample_rate"], "num_workers": 4}
    if not is_pieces:
        data["labels"] = "${model.labels}"
    model["train_ds"] = data | {"shuffle": True, "use_lhotse": True,
                                "batch_duration": recipe.training.audio_s_per_step, "num_buckets": 20}
    model["validation_ds"] = data | {"shuffle": False, "batch_size": 16}
    if augment := _spec_augment(recipe.training, network.num_mels):
        model["spec_augment"] = augment
    model["optim"] = _optimizer(recipe.optimizer) | {"sched": _schedule(recipe.schedule, recipe.optimizer.lr)}
    if recipe.transfer.use_source and recipe.transfer.encoder_lr_ratio != 1:
        model["optim_param_groups"] = {"encoder": {"lr": recipe.optimizer.lr * recipe.transfer.encoder_lr_ratio}}
    config: dict[str, Any] = {"name": f"cuarzo-{recipe.study.get('name', 'recipe')}"}
    if recipe.transfer.use_source:
        source = {"path": recipe.study.get("source") or _MISSING, "include": ["encoder"]}
        config["init_from_nemo_model"] = {"source": source}
    return config | {"model": model, "trainer": _trainer(recipe.training, precision), "exp_manager": {
        "exp_dir": None, "name": "${name}", "create_checkpoint_callback": True,
        "checkpoint_callback_params": {"monitor": "val_wer", "mode": "min", "always_save_nemo": True}}}


def _optimizer(recipe: OptimizerRecipe) -> dict[str, Any]:
    name = {"name": recipe.name} if recipe.name in _NEMO_OPTIMIZERS else {"_target_": _TARGETS[recipe.name]}
    return name | {"lr": recipe.lr, "betas": [recipe.beta1, recipe.beta2], "weight_decay": recipe.weight_decay}


def _schedule(recipe: ScheduleRecipe, lr: float) -> dict[str, Any]:
    schedule: dict[str, Any] = {"name": _SCHEDULERS[recipe.name], "warmup_ratio": recipe.warmup_share,
                                "min_lr": recipe.floor_ratio * lr}
    if recipe.name in ("polynomial", "warmup_hold_decay"):
        schedule["power"] = recipe.power
    if recipe.name == "warmup_hold_decay":
        schedule["hold_ratio"] = recipe.hold_share
    return schedule


def _spec_augment(recipe: TrainingRecipe, num_mels: int) -> dict[str, Any]:
    strength, augment = recipe.spec_augment_strength, dict[str, Any]()
    for drop in DROPS[recipe.spec_augment] if strength else ():
        if drop.mels is not None and drop.frames is not None:
            augment |= {"rect_masks": drop.count, "rect_freq": int(drop.widest(strength, num_mels)),
                        "rect_time": int(drop.frames * strength)}
        elif drop.mels is not None:
            augment |= {"freq_masks": drop.count, "freq_width": int(drop.widest(strength, num_mels))}
        elif drop.frames is not None:
            augment |= {"time_masks": drop.count, "time_width": int(drop.frames * strength)}
    return {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation"} | augment if augment else {}


def _trainer(recipe: TrainingRecipe, precision: str) -> dict[str, Any]:
    return {"devices": 1, "num_nodes": 1, "accelerator": "auto", "strategy": "auto", "max_epochs": recipe.epochs,
            "max_steps": _MISSING, "precision": precision, "accumulate_grad_batches": 1,
            "gradient_clip_val": recipe.gradient_clip, "check_val_every_n_epoch": 1,
            "use_distributed_sampler": False, "logger": False, "enable_checkpointing": False}


def _head(recipe: Recipe, frontend: FrontendConfig, vocabulary: Vocabulary) -> list[str]:
    """What a reader of the YAML needs to know, and what NeMo cannot do."""
    is_pieces = isinstance(vocabulary, PieceVocabulary)
    script = "speech_to_text_ctc_bpe.py" if is_pieces else "speech_to_text_ctc.py"
    lines = [f"Cuarzo's recipe for NeMo {WRITTEN_NEMO_VERSION}: examples/asr/asr_ctc/{script} --config-path=FOLDER "
             "--config-name=nemo",
             "Fill in each ???; trainer.max_steps, which the schedule needs, is the seconds of training speech "
             f"x {recipe.training.epochs} / {recipe.training.audio_s_per_step:g}.",
             "Transcripts must be normalised: lower case, no punctuation, digits spelled out."]
    if is_pieces:
        lines.append(f"{TOKENIZER_FOLDER} is next to this file; NeMo looks for it where the script is started.")
    if isinstance(vocabulary, CharacterVocabulary) and vocabulary.fold:
        lines.append("Transcripts must have no accents: fold them beforehand.")
    lines += ["", "What differs from Cuarzo:",
              f"- a step holds {recipe.training.audio_s_per_step:g} s over all devices, padding included; NeMo's "
              "batch_duration is per device: divide it by their number.",
              "- Cuarzo keeps an average of the weights over the latest part of training; NeMo keeps the last weights."]
    if frontend.padding == "reflect":
        lines.append("- the front end pads by reflection, as NeMo's did before 2.5; NeMo now pads with zeros.")
    if recipe.training.spec_augment != "none":
        lines.append("- a SpecAugment mask covers at most a fifth of a clip in Cuarzo; NeMo's rectangles need clips "
                     "longer than rect_time, 10 ms each.")
    return lines + _training_lines(recipe.training) + _transfer_lines(recipe) + _optimizer_lines(recipe)


def _training_lines(training: TrainingRecipe) -> list[str]:
    lines = list[str]()
    if training.consistency:
        lines.append(f"- training.consistency is {training.consistency:g}: Cuarzo trains on two views of each clip, "
                     "with more of the time masked, and on the difference of their outputs; NeMo trains on one.")
    if training.data_share < 1:
        lines.append(f"- training.data_share is {training.data_share:g}: Cuarzo trains on a part of the speech; NeMo "
                     "takes all that its manifest names.")
    if training.other_recordings:
        lines.append(f"- training.other_recordings is {training.other_recordings:g}: Cuarzo adds noise, fading and a "
                     "telephone's band to the features of so many clips; NeMo adds noise by train_ds.augmentor.")
    return lines


def _transfer_lines(recipe: Recipe) -> list[str]:
    transfer, lines = recipe.transfer, list[str]()
    if not transfer.use_source:
        return lines
    if transfer.decoder == "letters":
        lines.append("- transfer.decoder is letters: the decoder starts from the source's rows of shared letters; "
                     "NeMo's starts from random weights.")
    if transfer.frozen_epochs:
        lines.append(f"- transfer.frozen_epochs is {transfer.frozen_epochs}: NeMo counts steps; set "
                     "model.freeze_updates: {enabled: true, modules: {encoder: STEPS}}.")
    if transfer.frozen_epochs and transfer.frozen_part == "encoder_but_batchnorm":
        lines.append("- transfer.frozen_part is encoder_but_batchnorm: freeze_updates freezes BatchNorm too; instead "
                     "call encoder.freeze(), then train() and requires_grad_(True) on each BatchNorm, in Python.")
    if transfer.layer_lr_decay != 1:
        lines.append(f"- transfer.layer_lr_decay is {transfer.layer_lr_decay:g}: each block's rate is this times that "
                     "of the block above; NeMo has one rate for the encoder, here the top block's.")
    if transfer.source_l2:
        lines.append(f"- transfer.source_l2 is {transfer.source_l2:g}: after each step, weights go back towards the "
                     "source's; NeMo has no such penalty.")
    if transfer.batchnorm == "keep":
        lines.append("- transfer.batchnorm is keep: training normalises with the source's statistics and does not "
                     "change them; NeMo's adapt.")
    return lines


def _optimizer_lines(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.optimizer.name not in _NEMO_OPTIMIZERS:
        lines.append(f"- NeMo has no {recipe.optimizer.name}: pip install pytorch-optimizer.")
    if recipe.optimizer.name != "novograd" and recipe.optimizer.weight_decay:
        lines.append("- biases and BatchNorm's weights do not decay in Cuarzo; NeMo decays all.")
    if recipe.schedule.floor_ratio and recipe.transfer.use_source and recipe.transfer.encoder_lr_ratio != 1:
        lines.append("- min_lr is the decoder's; the encoder's own floor is lower in Cuarzo.")
    return lines
