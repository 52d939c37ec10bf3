"""What a recogniser gets wrong: references and hypotheses aligned, and the words and letters most often missed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

Aligned = tuple[str, str, str]
"""The operation (equal, replace, delete, insert), the unit in the reference, and the unit in the hypothesis; a missing
unit is empty."""


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[Aligned]:
    """Align the words (or letters) of both with the fewest edits."""
    for code in Levenshtein.opcodes(reference, hypothesis):
        for i in range(max(code.src_end - code.src_start, code.dest_end - code.dest_start)):
            was = reference[code.src_start + i] if code.src_start + i < code.src_end else ""
            heard = hypothesis[code.dest_start + i] if code.dest_start + i < code.dest_end else ""
            yield code.tag, was, heard


def most_wrong(references: Sequence[str], hypotheses: Sequence[str], most: int = 20,
               beside: dict[str, list[dict[str, Any]]] | None = None) -> dict[str, list[dict[str, Any]]]:
    """The words and letters of the references that are wrong most often, and the words inserted most often.

    `beside` is the result for another recogniser; only its words and letters are then counted.

    Returns: `words` and `letters`: each unit with its `count` in the references, how many are `wrong`, and `heard`, the
    most frequent substitute ("" for a deletion); `inserted`: inserted words with their counts.
    """
    def without_spaces(texts: Sequence[str]) -> list[str]:
        return [text.replace(" ", "") for text in texts]

    only = {kind: {row["unit"] for row in rows} for kind, rows in beside.items()} if beside else {}
    return {"words": _missed([text.split() for text in references], [text.split() for text in hypotheses], most,
                             only.get("words")),
            "letters": _missed(without_spaces(references), without_spaces(hypotheses), most, only.get("letters")),
            "inserted": _inserted(references, hypotheses, most)}


def _missed(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]], most: int,
            only: set[str] | None) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {}
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        counts.update(reference)
        for operation, was, heard in align(reference, hypothesis):
            if was and operation != "equal" and (only is None or was in only):
                wrong.setdefault(was, Counter())[heard] += 1
    ranked = sorted(wrong.items(), key=lambda item: (-item[1].total(), item[0]))[:most]
    return [{"unit": unit, "count": counts[unit], "wrong": instead.total(), "heard": instead.most_common(1)[0][0]}
            for unit, instead in ranked]


def _inserted(references: Sequence[str], hypotheses: Sequence[str], most: int) -> list[dict[str, Any]]:
    found = Counter(heard for reference, hypothesis in zip(references, hypotheses, strict=True)
                    for operation, _, heard in align(reference.split(), hypothesis.split()) if operation == "insert")
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [{"unit": word, "wrong": count} for word, count in ranked]
