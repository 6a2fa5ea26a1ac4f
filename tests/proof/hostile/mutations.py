"""Seeded mutations of bytes and of JSON."""

import copy
import json
import random
import struct
from typing import Any

NAN, INF = float("nan"), float("inf")
# What a value is replaced by.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, -(2**31), 2**31, 2**53, 2**63, -(2**64), 10**12, 10**30),
    *(0.5, -0.5, 1e-300, 1e300, NAN, INF, -INF, 0.0),
    *("", " ", "x", "0", "NaN", "\0", "a\nerror: b", "\ud800", "x" * 5000, "../x", "/dev/zero", "é"),
    *([], [None], [0], [-1, 1], [[]], [1, "a"], [NAN, 1.0], ["a", "b"], [10**30] * 4, [0, 0, 0, 0], [1.5, 1, 1, 1]),
    *((), (1,), (0.0, 0.0), ("head",), (2, 1), (NAN, NAN), ((1, 2), 3)),
    *({}, {"a": 1}, {"name": None}),
)
_EXTREMES = [struct.pack("<f", value) for value in (NAN, INF, -INF, 3e38)] + [bytes(8), b"\xff" * 8, struct.pack("<Q", 1 << 62)]


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Returns content with one to four changes: flipped bits, other bytes, pieces removed, repeated, moved or inserted."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        at = rng.randrange(size + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 32, 200)), size - at)
        kind = rng.randrange(8)
        if kind == 0 and at < size:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < size:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 4:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 5:
            extreme = rng.choice(_EXTREMES)
            changed[at : at + len(extreme)] = extreme
        elif kind == 6 and rng.random() < 0.3:
            del changed[at:]
        elif kind == 7:
            changed[at : at + length] = bytes(length)
    return bytes(changed)


def mutate_json(rng: random.Random, content: Any) -> bytes:
    """Returns the text of mutated JSON content, which may be cut."""
    text = json.dumps(mutated(rng, content))
    return (text[: rng.randrange(len(text) + 1)] if rng.random() < 0.03 else text).encode()


def mutated(rng: random.Random, content: Any) -> Any:
    """Returns JSON content in which one to three values, at any depth, are replaced, removed, added or moved."""
    holder = [copy.deepcopy(content)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        parent, key = rng.choice(_places(holder))
        kind = rng.randrange(6)
        if kind <= 2:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 3 and parent is not holder:
            del parent[key]
        elif kind == 4:
            parent[key] = [parent[key]]
        else:
            other, place = rng.choice(_places(holder))
            parent[key] = copy.deepcopy(other[place])
    return holder[0]


def _places(parent: Any) -> list[tuple[Any, Any]]:
    """Returns each container with each of its keys, at any depth."""
    keys = parent.keys() if isinstance(parent, dict) else range(len(parent))
    found = [(parent, key) for key in keys]
    for key in keys:
        if isinstance(parent[key], dict | list):
            found += _places(parent[key])
    return found
