"""The choice between float32 and bfloat16."""

import pytest
import torch

from models.precision import choose_precision


def test_what_is_asked_for_is_given() -> None:
    assert choose_precision("float32", "cpu") == torch.float32
    assert choose_precision("bf16", "cpu") == torch.bfloat16


@pytest.mark.parametrize("has_bf16", [False, True])
def test_auto_asks_the_hardware(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr("models.precision.cpu_has_bf16", lambda: has_bf16)
    assert choose_precision("auto", "cpu") == (torch.bfloat16 if has_bf16 else torch.float32)


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is 'fp16'; it must be auto, float32 or bf16"):
        choose_precision("fp16", "cpu")  # type: ignore[arg-type]
