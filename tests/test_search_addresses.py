"""An address that holds a key is refused by the field's name, and the key is not repeated."""

from collections.abc import Callable
from typing import Any

import pytest

from search.config import ConfigError, StudyConfig
from search.training_config import TrainingConfig

MARK = "5ec4e7" * 7
"""In every secret here."""


@pytest.mark.parametrize("address", [
    f"s3://AKIA:{MARK}@bucket/es.tar.gz", f"s3://AKIA:a/b+{MARK}@bucket/es.tar.gz", f"https://{MARK}@host/es.tar.gz",
    f"s3://bucket/es.tar.gz?access_key=1&secret_key={MARK}", f"https://host/es.tar.gz?token={MARK}",
    f"https://host/es.tar.gz?X-Amz-Date=1&X-Amz-Signature={MARK}", f"abfs://account:{MARK}@container/es.tar.gz",
    f"https://host/es.tar.gz?sv=1&sig={MARK}", f"https://host/es.tar.gz#token={MARK}",
    f"https://host/es.tar.gz;token={MARK}", f"https://host/es.tar.gz?jwt={MARK}", f"https://host/es.tar.gz?pwd={MARK}",
    f"s3://bucket/es.tar.gz?endpoint_override=http%3A%2F%2Fuser%3A{MARK}%40host",
    f"https://host/es.tar.gz?a=1%26token%3D{MARK}"])
def test_address_with_a_key_is_refused_and_the_key_not_repeated(address: str) -> None:
    makes: dict[str, Callable[[], Any]] = {
        "corpus": lambda: StudyConfig(corpus=("a.tar.gz", address), source="none"),
        "train": lambda: StudyConfig(train=(address,), source="none"),
        "source": lambda: StudyConfig(corpus=("a.tar.gz",), source=address),
        "dev": lambda: TrainingConfig(dev=(address,)),
        "test": lambda: TrainingConfig(test=(address, address))}
    for name, make in makes.items():
        said = rf"^{name} is an address \(\w+://…\) with a key (before the @|in its parameter)"
        with pytest.raises(ConfigError, match=said) as refused:
            make()
        assert MARK not in str(refused.value) and "AWS_ACCESS_KEY_ID" in str(refused.value)


@pytest.mark.parametrize("address", [
    "s3://bucket/a@b/es.tar.gz", "s3://bucket/es.tar.gz?region=eu-west-1&endpoint_override=localhost:9000",
    "gs://anonymous@bucket/es.tar.gz", "hdfs://host:9000/a@b/es.tar.gz", "/data/a:b@c/es.tar.gz", "what?token=1",
    "mdc:abc"])
def test_address_without_a_key_is_taken(address: str) -> None:
    assert StudyConfig(corpus=(address,), source="none").corpus == (address,)
