"""Runs the campaigns and writes their results: `python -m tests.proof --out DIR [--only NAME] [--seed S]`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paca_jax.command_line import Parser
from tests.proof import fuzz, inputs, installs, interruptions, kernels, kills, long_tests, processes, starts, versions

# Takes the folder of its files and the seed.
Campaign = Callable[[Path, int], dict[str, Any]]


def _kills(start: starts.Start, count: int) -> Campaign:
    return lambda folder, seed: kills.campaign(start, folder, count, seed)


# Each with the function that makes a table of its result.
CAMPAIGNS: dict[str, tuple[Campaign, Callable[[dict[str, Any]], str]]] = {
    "classification": (_kills(starts.classification, 20), kills.as_table),
    "segmentation": (_kills(starts.segmentation, 4), kills.as_table),
    "detection": (_kills(starts.detection, 4), kills.as_table),
    "processes": (processes.campaign, processes.as_table),
    "interruptions": (interruptions.campaign, interruptions.as_table),
    "inputs": (inputs.campaign, inputs.as_table),
    "fuzz": (fuzz.campaign, fuzz.as_table),
    "installs": (installs.campaign, installs.as_table),
    "versions": (versions.campaign, versions.as_table),
    "tests": (long_tests.campaign, long_tests.as_table),
    "kernels": (lambda folder, seed: kernels.campaign(folder), kernels.as_table),
}


def main() -> None:
    parser = Parser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the runs and the .json and .md file of each campaign"
    )
    parser.add_argument("--only", choices=CAMPAIGNS, help="a single campaign (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    holds = True
    for name in [arguments.only] if arguments.only else CAMPAIGNS:
        campaign, as_table = CAMPAIGNS[name]
        result = campaign(arguments.out / name, arguments.seed)
        table = as_table(result)
        (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        (arguments.out / f"{name}.md").write_text(table)
        print(table)
        holds = holds and result["holds"]
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
