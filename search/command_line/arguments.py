"""Parse the command line of a study into its StudyConfig."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.command_line.flags import Parser, read_flags
from search.config import RUN_VERSION, ConfigError, StudyConfig, check_version, load_config
from spaces.typed import build, load_yaml


def parse_command_line(description: str,
                       arguments: Sequence[str] | None = None) -> tuple["StudyConfig", bool, bool, bool]:
    """Read `--config FILE`, `--resume DIR`, `--check`, `--look-again` and a flag for every field, in this order:
    (config, resume, check, look_again).

    Flags win over the file; a resumed study starts from its own configuration. Exits with code 2 on wrong usage.

    Raises:
        ConfigError: the study to resume is at fault, not the usage.
    """
    parser = Parser(description=description)
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these fields; flags override it.")
    parser.add_argument("--resume", metavar="DIR", help="Resume the study in this run's folder where it stopped.")
    parser.add_argument("--check", action="store_true",
                        help="Prepare the corpus, print and save what a study would see of it and cost, and stop.")
    parser.add_argument("--look-again", action="store_true",
                        help="With --resume: read the test split once more, for the winner as it is now. Every look is "
                             "kept in test.json and counted on the card.")
    given, flags = read_flags(parser, StudyConfig, "the study", arguments)
    if given.resume and (given.config or given.out):
        parser.error("--resume uses the folder's own configuration; leave out --config and --out.")
    if given.look_again and not given.resume:
        parser.error("--look-again reads the test split of a study that has read it before; give the study with "
                     "--resume DIR")
    values: dict[str, Any] = {}
    if given.resume:
        values = dataclasses.asdict(load_config(Path(given.resume).expanduser().resolve()))
        flags["out"] = given.resume
    try:
        if given.config:
            values = load_yaml(given.config, "study configuration", ConfigError)
            check_version(values.pop("version", RUN_VERSION), given.config)
        return build(StudyConfig, values | flags, ConfigError), bool(given.resume), given.check, given.look_again
    except ConfigError as error:
        parser.error(str(error))
