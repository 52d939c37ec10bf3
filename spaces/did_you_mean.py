"""What the user may have meant by an unknown name: another tool's word for a known name, or a similar spelling."""

import difflib
import re
from collections.abc import Iterable

NEAR = 0.75
"""Share of common letters below which names are not near: `learning_rate` is not `weight_decay`."""

HARDLY_WRONG = 0.9
"""The same for one wrong letter of many: `trial` is `trials`, whatever else contains the word."""

MAX_MEANT = 3
"""Most names of one meaning that a message lists."""

SYNONYMS = {
    # recipes
    "lr": "learning_rate max_lr peak_lr base_lr init_lr initial_lr learn_rate rate alpha eta",
    "encoder_lr_ratio": "encoder_lr encoder_learning_rate lr_ratio discriminative_lr",
    "beta1": "b1 betas momentum", "beta2": "b2",
    "weight_decay": "wd decay l2 l2_penalty",
    "warmup_share": "warmup warmup_steps warmup_ratio warmup_epochs num_warmup_steps warm_up",
    "floor_ratio": "min_lr eta_min lr_min final_lr floor",
    "gradient_clip": "clip grad_clip clip_grad max_grad_norm grad_norm gradient_clip_val clip_norm",
    "audio_s_per_step": "batch batch_size batch_duration batch_seconds train_batch_size per_device_train_batch_size",
    "speed_perturbation": "speed speed_perturb speed_aug", "spec_augment": "specaug specaugment augment augmentation",
    "frozen_epochs": "freeze freeze_epochs freeze_encoder frozen", "use_source": "pretrained from_pretrained transfer",
    "frozen_part": "freeze_part frozen_layers",
    "layer_lr_decay": "llrd layer_decay layerwise_lr_decay layerwise_learning_rate_decay layer_wise_lr_decay",
    "source_l2": "l2_sp l2sp sp_alpha",
    "batchnorm": "bn batch_norm norm", "size": "vocab_size vocabulary_size num_pieces num_labels",
    "kind": "type tokenizer tokenizer_type", "network": "arch architecture model model_size",
    "optimizer": "optim optimiser solver", "name": "type kind",
    "schedule": "scheduler lr_scheduler lr_schedule annealing sched",
    "vocabulary": "vocab tokens labels",
    # studies and trainings
    "corpus": "data dataset data_dir data_path corpora manifest input inputs",
    "train": "train_set train_manifest train_data train_split training_set training",
    "dev": "val valid validation dev_set val_set validation_set valid_set eval_set dev_manifest val_manifest "
           "valid_manifest validation_manifest eval_manifest dev_split val_data validation_data eval_data",
    "test": "test_set test_manifest test_data test_split",
    "language": "lang locale",
    "source": "model checkpoint ckpt nemo pretrained pretrained_model init_from from_pretrained base_model",
    "space": "search_space spaces",
    "trials": "num_trials n_trials num_samples samples runs",
    "epochs": "num_epochs n_epochs num_train_epochs max_epochs epoch",
    "max_epochs": "num_epochs n_epochs num_train_epochs epochs epoch",
    "budget": "time time_limit max_time time_budget time_budget_s wall_time walltime hours",
    "budget_gpu_h": "gpu_hours", "budget_cost": "cost max_cost money", "cost_per_hour": "price",
    "seed": "random_seed random_state rng", "confirm": "top_k num_best",
    "workers_per_trial": "workers num_workers devices nproc world_size num_processes ddp nproc_per_node",
    "workers": "workers_per_trial num_workers devices nproc world_size num_processes ddp nproc_per_node",
    "gpus_per_worker": "gpu gpus num_gpus gpus_per_trial ngpu",
    "cpus_per_worker": "cpu cpus num_cpus threads num_threads cpus_per_trial",
    "concurrency": "parallel parallelism jobs n_jobs max_concurrent max_concurrent_trials",
    "trial_timeout": "timeout", "timeout": "trial_timeout",
    "grace_epochs": "grace grace_period min_epochs", "reduction_factor": "eta factor",
    "precision": "fp16 bf16 amp dtype mixed_precision", "max_audio_s_per_pass": "micro_batch micro_batch_size",
    "wandb": "tracker tracking logger wandb_mode report_to", "cache": "cache_dir cache_folder",
    "out": "output output_dir out_dir outdir run_dir exp_dir folder name run_name",
    "patience": "early_stopping early_stop", "average_last": "swa ema average averaging num_average",
    "source_licence": "licence license source_license", "allow_overlap": "overlap", "warm_start": "warmstart",
    "resume": "continue restart resume_from resume_from_checkpoint", "check": "dry_run validate", "config": "yaml cfg",
    # transcribing
    "json": "format output_format", "names": "paths filenames with_names",
}
"""What other tools and people call a field or a flag of ours, separated by spaces."""


def meant(name: str, known: Iterable[str]) -> list[str]:
    """The known names that the user may have meant by an unknown one, few or none.

    A known name may have dots or dashes: `learning_rate` means `optimizer.lr`, and `epochs` means `--max-epochs`.
    """
    names = list(known)
    return same(name, names) or near(name, names)


def same(name: str, known: Iterable[str]) -> list[str]:
    """Known names that mean the same as this one, in another spelling or as other tools call it."""
    wanted = _plain(name)
    exact = [whole for whole in known if wanted in (_plain(whole), _plain(_last(whole)))]
    return exact or [whole for whole in known if wanted in map(_plain, SYNONYMS.get(_key(whole), "").split())][:1]


def near(name: str, known: Iterable[str]) -> list[str]:
    """The known names that contain all words of this one, if they are few, or the one with nearly the same letters."""
    names, words, plain = {_plain(_last(whole)): whole for whole in known}, _words(name), _plain(_last(name))
    found = [whole for whole in names.values() if words and words <= _words(whole)]
    cutoff = HARDLY_WRONG if found and len(found) <= MAX_MEANT else NEAR
    close = difflib.get_close_matches(plain, names, n=1, cutoff=cutoff)
    return [names[close[0]]] if close else found if len(found) <= MAX_MEANT else []


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; the nearest is NAME`, or nothing if none is near."""
    return said(meant(name, known))


def said(found: list[str]) -> str:
    """The same for names already found."""
    return f"; the nearest {'is' if len(found) == 1 else 'are'} {', '.join(found)}" if found else ""


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _key(name: str) -> str:
    return _last(name).lstrip("-").replace("-", "_")


def _plain(name: str) -> str:
    return re.sub(r"[^\w]|_", "", name.lower())


def _words(name: str) -> set[str]:
    return {word.rstrip("s") or word for word in re.split(r"[^a-z0-9]+", _last(name).lower()) if len(word) > 1}
