"""Runs the campaigns and writes what they found: `python -m tests.proof --out DIR [--kills N] [--seed S]`."""

import argparse
import json
import sys
from pathlib import Path

from tests.proof import kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, results.json and results.md")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    result = kills.campaign(arguments.out, arguments.kills, arguments.seed)
    (arguments.out / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    table = kills.as_table(result)
    (arguments.out / "results.md").write_text(table)
    print(table)
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    main()
