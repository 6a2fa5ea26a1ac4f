"""Runs the campaigns and writes their results: `python -m tests.proof --out DIR [--only NAME] [--seed S]`."""

import argparse
import json
import sys
from pathlib import Path

from tests.proof import kernels, kills, processes, starts

# The runs to kill, and the number of times.
KILLS = {
    "classification": (starts.classification, 20),
    "segmentation": (starts.segmentation, 4),
    "detection": (starts.detection, 4),
}
CAMPAIGNS = (*KILLS, "processes", "kernels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the runs and the .json and .md file of each campaign"
    )
    parser.add_argument("--only", choices=CAMPAIGNS, help="a single campaign (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    holds = True
    for name in [arguments.only] if arguments.only else CAMPAIGNS:
        folder = arguments.out / name
        if name in KILLS:
            start, count = KILLS[name]
            result = kills.campaign(start, folder, count, arguments.seed)
            table = kills.as_table(result)
        elif name == "kernels":
            result = kernels.campaign(folder)
            table = kernels.as_table(result)
        else:
            result = processes.campaign(folder, arguments.seed)
            table = processes.as_table(result)
        (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        (arguments.out / f"{name}.md").write_text(table)
        print(table)
        holds = holds and result["holds"]
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
