import itertools

import numpy as np
import pytest

from paca_jax.data import Shape, train_batches
from tests.data.tiny import Numbers, encode

SHAPES = [Shape(2, 3, 4), Shape(3, 2, 4), Shape(4, 6, 4), Shape(4, 6, 16)]
LENGTH, SIZE = 53, 4


def shape_of(index, rng):
    """Two examples in nine lie upright, one in nine has many objects, and a draw decides about the size."""
    if index % 9 < 2:
        return SHAPES[1]
    return SHAPES[3] if index % 9 == 5 else SHAPES[0] if rng.random() < 0.5 else SHAPES[2]


def padded(example, rng, shape):
    needed = shape_of(example["label"], rng)
    rows = np.zeros(shape)
    return {"rows": rows, "label": np.int32(example["label"]), "needed": np.array(needed)}


def run(length=LENGTH, batch_size=SIZE, num_steps=40, start_step=0, source=None, **options):
    options = {"seed": 5, "start_step": start_step, "num_steps": num_steps, "shape_of": shape_of, **options}
    return list(train_batches(source or Numbers(length), padded, batch_size=batch_size, **options))


@pytest.mark.parametrize(("length", "batch_size"), [(LENGTH, SIZE), (12, 4), (5, 8), (1, 3), (16, 16)])
def test_every_example_comes_once_an_epoch(length, batch_size):
    line = np.concatenate([batch["label"] for batch in run(length, batch_size)])
    epochs = line[: len(line) // length * length].reshape(-1, length)
    assert len(epochs) >= 3
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    if length > 8:
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_a_batch_has_the_shape_of_its_rows():
    mixed = 0
    for batch in run(num_steps=106):  # 8 epochs
        assert batch["rows"].shape == (SIZE, *batch["rows"].shape[1:])
        needed = {tuple(shape) for shape in batch["needed"].tolist()}
        height, width = max((shape[:2] for shape in needed), key=lambda shape: (shape[0] * shape[1], shape[1]))
        assert batch["rows"].shape[1:] == (height, width, max(shape[2] for shape in needed))
        mixed += len({shape[:2] for shape in needed}) > 1
    # Three picture shapes leave over two batches an epoch at most, and one completes it with the next.
    assert 0 < mixed <= 8 * 3


def test_examples_meet_others_in_the_next_epoch():
    batches = [sorted(batch["label"].tolist()) for batch in run(length=48, num_steps=24)]
    first, second = (
        {pair for batch in half for pair in itertools.combinations(batch, 2)} for half in (batches[:12], batches[12:])
    )
    assert len(first & second) < len(first) / 2


@pytest.mark.parametrize("rows", [[range(2), range(2, 4)], [(0, 3), (1,), (2,)]])
def test_processes_agree_on_shapes_and_rows(rows):
    whole, parts = run(), [run(rows=part) for part in rows]
    order = np.argsort(np.concatenate(rows))
    for batch, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        for key in batch:
            np.testing.assert_array_equal(np.concatenate([piece[key] for piece in pieces])[order], batch[key])


def test_resuming_and_workers_change_nothing():
    whole = run()
    for again in (run(start_step=17), run(start_step=17, num_workers=2)):
        assert len(again) == 23
        for batch, expected in zip(again, whole[17:], strict=True):
            for key in batch:
                np.testing.assert_array_equal(batch[key], expected[key])


def test_another_seed_gives_other_batches():
    first, second = (np.concatenate([batch["label"] for batch in run(seed=seed)]) for seed in (5, 6))
    assert not np.array_equal(first, second)


class HalfCorrupt(Numbers):
    def __getitem__(self, index):
        example = super().__getitem__(index)
        return example if index % 2 else {**example, "image": encode(np.zeros((2, 2), np.uint8))[:20]}


def decoded(example, rng, shape):
    from paca_jax.data import decode_image

    decode_image(example["image"], 1)
    return padded(example, rng, shape)


def test_batches_without_a_readable_row_keep_their_shape():
    batches = list(
        train_batches(
            HalfCorrupt(9), decoded, batch_size=1, seed=0, start_step=0, num_steps=18, skip_corrupt=True, shape_of=shape_of
        )
    )
    assert sum(batch["valid"].sum() for batch in batches) == 8
    plain = run(9, 1, 18, seed=0)
    assert [batch["rows"].shape for batch in batches] == [batch["rows"].shape for batch in plain]
