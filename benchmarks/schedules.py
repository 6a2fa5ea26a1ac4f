"""The cycles of a Pallas kernel, from the schedule that the TPU compiler writes."""

import re

import numpy as np

_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s.*?:.*?\{", re.MULTILINE)
_BRANCH = re.compile(r"sbr\.rel (?:\(!?%(\w+)\) )?target bundleno = (\d+)")
_EXIT = re.compile(r"%(\w+) = scmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
_BRANCH_DELAY = 4  # bundles that run after a branch before it is taken
_PIPELINE_ROUNDS = 2  # of a grid's loop: one before the first step and one after the last, which only copy


def cycles(schedule: str, steps: int) -> int:
    """Returns the cycles of a kernel, one per bundle of instructions, including empty ones that wait for results.

    Waiting for memory is not included. Code that only some steps of the grid run counts in every step.

    Args:
        schedule: the text of libtpu's `*-packed-bundles-post-ra.txt`, in which waits are not yet folded into one instruction.
        steps: the number of steps of the kernel's grid; two cores may split them.

    Raises:
        ValueError: if the text has no bundles, or a loop whose number of iterations it does not contain.
    """
    starts = [match.start() for match in _BUNDLE.finditer(schedule)]
    if not starts:
        raise ValueError("Expected a schedule, got a text with no bundles.")
    bounds = {name: int(bound) for name, bound in _EXIT.findall(schedule)}
    times = np.ones(len(starts), np.int64)
    loops = sorted(_loops(schedule, starts), key=lambda loop: loop[0] - loop[1])
    for first, last, test in loops:
        if test not in bounds:
            raise ValueError(
                f"Expected a number of iterations in the text for the loop of bundles {first} to {last}, got none."
            )
        is_grid = steps > 1 and first == loops[0][0]
        times[first : last + 1] *= _grid_rounds(bounds[test], steps) if is_grid else bounds[test]
    return int(times.sum())


def _loops(schedule: str, starts: list[int]) -> list[tuple[int, int, str]]:
    """Returns the first and last bundle and the exit test of each loop: loops are branches that go back."""
    found = []
    for index, text in enumerate(schedule[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)):
        for test, target in _BRANCH.findall(text):
            if int(target) <= index:
                found.append((int(target), index + _BRANCH_DELAY, test))
    return found


def _grid_rounds(bound: int, steps: int) -> int:
    rounds = bound - _PIPELINE_ROUNDS
    if rounds not in (steps, steps // 2):
        raise ValueError(f"Expected {steps} iterations of a kernel's outermost loop, the steps of its grid, got {rounds}.")
    return rounds
