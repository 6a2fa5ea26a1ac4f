import dataclasses
import math

import pytest

from benchmarks import scaling
from benchmarks.programs import Case

CASE = Case("pacavit_nano", 1, 32, "float32")


def row(size, temporaries, durations=None, clusters=None):
    found = {"model": "a", "clusters": clusters, "image_size": size, "temporary_bytes": temporaries}
    return found | ({"skipped": "needs 3.00 GiB"} if durations is None else {"durations": durations})


def test_time_and_memory_per_patch_are_relative_to_the_smallest_size():
    linear = [row(224, 10**6, [0.1, 0.2, 0.1]), row(448, 4 * 10**6, [0.44, 0.8, 0.4])]
    quadratic = [row(224, 10**6, [0.3, 0.3, 0.3], scaling.PLAIN), row(448, 16 * 10**6, None, scaling.PLAIN)]
    found = scaling.normalize([*linear, *quadratic])
    assert [one["patches"] for one in found] == [3136, 12544, 3136, 12544]
    assert [one["relative_memory"] for one in found] == [1, 1, 1, 4]
    assert [one["relative_time"]["median"] for one in found[:3]] == pytest.approx([1, 1, 1])
    assert found[1]["relative_time"]["high"] == pytest.approx(1.05), "halfway from 1.0 to 1.1, per round"
    assert "relative_time" not in found[3]


def test_the_table_gives_the_reason_for_a_skipped_size():
    rows = [row(224, 2**20, [0.1, 0.1]), row(448, 8 * 2**20), row(448, 2**20, None, scaling.PLAIN)]
    assert scaling.markdown(scaling.normalize(rows)).splitlines()[2:] == [
        "| `a` | 224 | 3,136 | 100.0 (100.0 to 100.0) | 1.00 (1.00 to 1.00) | 1.0 | 1.00 |",
        "| `a` | 448 | 12,544 | needs 3.00 GiB | - | 8.0 | 2.00 |",
        "| `a`, plain attention | 448 | 12,544 | needs 3.00 GiB | - | 1.0 | 1.00 |",
    ]


@pytest.mark.slow
def test_sizes_are_timed_in_turn_unless_they_need_too_much_memory():
    cases = [CASE, dataclasses.replace(CASE, image_size=64), dataclasses.replace(CASE, clusters=scaling.PLAIN)]
    rows = scaling.measure(cases, rounds=3, most_bytes=math.inf)
    assert [len(row["durations"]) for row in rows] == [3, 3, 3]
    most_bytes = min(row["total_bytes"] for row in rows[:2])
    for row in scaling.measure(cases[:2], rounds=2, most_bytes=most_bytes):
        if row["total_bytes"] > most_bytes:
            assert row["skipped"].startswith("needs ")
            assert "durations" not in row
        else:
            assert len(row["durations"]) == 2
