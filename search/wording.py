"""Numbers in the sentences of messages."""


def counted(number: float, noun: str) -> str:
    """A number with its noun, singular for one or a part of one: 0 trials, 1 trial, 0.5 CPU, 1,004 clips."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {noun}{'' if 0 < number <= 1 else 's'}"
