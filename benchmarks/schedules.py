"""Reading how long a Pallas kernel takes from the schedule that the TPU compiler writes."""

import re

import numpy as np

_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s.*?:.*?\{", re.MULTILINE)
_BRANCH = re.compile(r"sbr\.rel (?:\(!?%(\w+)\) )?target bundleno = (\d+)")
_EXIT = re.compile(r"%(\w+) = scmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
_BRANCH_DELAY = 4  # bundles that still run before a branch is taken
_PIPELINE_ROUNDS = 2  # of a grid's loop: before its first step and after its last one, which only copy


def cycles(schedule: str, steps: int) -> int:
    """Returns the cycles of a kernel, one a bundle of instructions, empty ones that wait for results included.

    What waits for memory is not in it. A part of the kernel that only some steps of its grid run counts in all of them.

    Args:
        schedule: the text of libtpu's `*-packed-bundles-post-ra.txt`, in which waiting is not yet folded into one instruction.
        steps: of the kernel's grid; two cores may share them.

    Raises:
        ValueError: if the text has no bundles, or a loop whose rounds it does not tell.
    """
    starts = [match.start() for match in _BUNDLE.finditer(schedule)]
    if not starts:
        raise ValueError("The text has no bundles, so it is no schedule.")
    bounds = {name: int(bound) for name, bound in _EXIT.findall(schedule)}
    times = np.ones(len(starts), np.int64)
    loops = sorted(_loops(schedule, starts), key=lambda loop: loop[0] - loop[1])
    for first, last, test in loops:
        if test not in bounds:
            raise ValueError(
                f"The loop of bundles {first} to {last} does not end after a number of rounds that the text tells."
            )
        is_grid = steps > 1 and first == loops[0][0]
        times[first : last + 1] *= _grid_rounds(bounds[test], steps) if is_grid else bounds[test]
    return int(times.sum())


def _loops(schedule: str, starts: list[int]) -> list[tuple[int, int, str]]:
    """Returns each loop's first and last bundle, and what tells its end: loops are branches that go back."""
    found = []
    for index, text in enumerate(schedule[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)):
        for test, target in _BRANCH.findall(text):
            if int(target) <= index:
                found.append((int(target), index + _BRANCH_DELAY, test))
    return found


def _grid_rounds(bound: int, steps: int) -> int:
    rounds = bound - _PIPELINE_ROUNDS
    if rounds not in (steps, steps // 2):
        raise ValueError(f"The outermost loop of a kernel runs {rounds} rounds, which are not the {steps} steps of its grid.")
    return rounds
