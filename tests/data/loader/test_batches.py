import itertools

import numpy as np
import pytest

from paca_jax.data import SegmentationEvalTransform, eval_batches, image_sizes, train_batches
from paca_jax.errors import UserError
from tests.data.tiny import CORRUPT, Numbers, Pictures, draw, encode

TRAIN = {"batch_size": 8, "seed": 3, "start_step": 0, "num_steps": 7}


def train(length=21, transform=draw, **options):
    return list(train_batches(Numbers(length), transform, **{**TRAIN, **options}))


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def joined(parts, rows):
    """Puts the rows of several processes back into whole batches."""
    order = np.argsort(np.concatenate(rows))
    return [{key: np.concatenate([part[key] for part in step])[order] for key in step[0]} for step in zip(*parts, strict=True)]


def test_every_example_once_an_epoch_in_a_new_order():
    line = np.concatenate([batch["label"] for batch in train(num_steps=21)])  # 8 epochs of 21, in 21 batches of 8
    epochs = line.reshape(8, 21)
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert tuple(epochs[0]) != tuple(range(21))


def test_another_seed_is_another_order_and_other_draws():
    first, second = train(), train(seed=4)
    assert not np.array_equal(first[0]["label"], second[0]["label"])
    by_label = [{int(n): d for b in run[:2] for n, d in zip(b["label"], b["drawn"], strict=True)} for run in (first, second)]
    common = by_label[0].keys() & by_label[1].keys()
    assert common
    assert all(not np.array_equal(by_label[0][n], by_label[1][n]) for n in common)


def test_batch_has_fixed_types_and_a_mask():
    batch = train()[0]
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((8, 1, 1, 1), "float32"),
        "label": ((8,), "int32"),
        "drawn": ((8, 3), "float64"),
        "valid": ((8,), "float32"),
    }
    assert batch["valid"].tolist() == [1] * 8
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])


# How the eight rows of a batch may lie with the processes: in blocks, interleaved, unevenly.
SHARES = [[range(4), range(4, 8)], [(0, 1, 4, 5), (2, 3, 6, 7)], [(0, 2, 5, 7), (1,), (3, 4, 6)]]


@pytest.mark.parametrize("rows", SHARES)
def test_processes_share_the_same_batches(rows):
    assert_same(joined([train(rows=r) for r in rows], rows), train())


def test_rows_come_in_their_order_also_from_workers():
    whole, part = train(), train(rows=np.array([1, 2, 6]), num_workers=2)
    assert_same(part, [{key: value[[1, 2, 6]] for key, value in batch.items()} for batch in whole])


def test_resuming_goes_on_with_the_same_batches():
    assert_same(train(start_step=4), train()[4:])
    assert train(start_step=7) == []


def test_workers_do_not_change_the_batches():
    assert_same(train(num_workers=2, start_step=2), train()[2:])  # 5 batches: the workers get unequal parts


def test_draws_depend_on_epoch_and_example_only():
    whole = train(num_steps=6)
    small = train(batch_size=2, num_steps=24)

    def draws(run):
        labels = np.concatenate([b["label"] for b in run]).tolist()
        seen = [(position // 21, label) for position, label in enumerate(labels)]
        return dict(zip(seen, np.concatenate([b["drawn"] for b in run]).tolist(), strict=True))

    assert draws(whole) == draws(small)
    assert len({tuple(d) for d in draws(whole).values()}) == 48  # all different


@pytest.mark.parametrize("rows", [[range(8)], *SHARES])
@pytest.mark.parametrize("length", [21, 3, 16])
def test_evaluation_counts_every_example_once_in_order(length, rows):
    batches = joined([list(eval_batches(Numbers(length), draw, batch_size=8, rows=r)) for r in rows], rows)
    assert len(batches) == -(-length // 8)
    labels, mask = (np.concatenate([b[key] for b in batches]) for key in ("label", "valid"))
    assert labels[mask == 1].tolist() == list(range(length))
    assert mask.sum() == length
    padding = np.concatenate([b["image"] for b in batches])[mask == 0]
    assert len(padding) == len(mask) - length
    assert not padding.any()


def test_evaluation_with_workers_is_the_same():
    one, two = (list(eval_batches(Numbers(21), draw, batch_size=4, num_workers=w)) for w in (0, 1))
    assert_same(one, two)


@pytest.mark.parametrize(("batches", "workers"), [(train_batches, 0), (train_batches, 2), (eval_batches, 0)])
def test_corrupt_image_is_named(batches, workers):
    options = {**TRAIN, "num_workers": workers} if batches is train_batches else {"batch_size": 8, "num_workers": workers}
    with pytest.raises(UserError) as caught:
        list(batches(Numbers(16, corrupt=(5,)), draw, **options))
    assert str(caught.value) == (
        "Expected every image of data set 'numbers', split 'train', to be readable, got a corrupt one at index 5. Replace it, "
        "or skip and count such images with dataset.skip_corrupt=True."
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_images_are_skipped_and_counted(workers):
    source = Numbers(16, corrupt=CORRUPT)
    batches = list(eval_batches(source, draw, batch_size=4, num_workers=workers, skip_corrupt=True))
    mask = np.concatenate([b["valid"] for b in batches])
    assert np.flatnonzero(mask == 0).tolist() == list(CORRUPT)
    assert np.concatenate([b["label"] for b in batches])[list(CORRUPT)].tolist() == [0, 0]
    assert not np.concatenate([b["drawn"] for b in batches])[list(CORRUPT)].any()
    train_mask = [b["valid"] for b in train_batches(source, draw, **{**TRAIN, "num_steps": 2}, skip_corrupt=True)]
    assert np.concatenate(train_mask).sum() == 14


def test_batch_without_a_readable_image_keeps_its_shape():
    source = Numbers(6, corrupt=(0, 1, 4, 5))
    batches = list(eval_batches(source, draw, batch_size=2, skip_corrupt=True))
    assert [b["valid"].tolist() for b in batches] == [[0, 0], [1, 1], [0, 0]]
    assert all(b["image"].shape == (2, 1, 1, 1) and b["image"].dtype == np.float32 for b in batches)


def test_only_corrupt_images_is_an_error():
    with pytest.raises(UserError, match="got only corrupt ones"):
        list(eval_batches(Numbers(2, corrupt=(0, 1)), draw, batch_size=2, skip_corrupt=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "Expected batch_size to be a whole number from 1 to 16777216, got 0"),
        ({"batch_size": 10**15}, "Expected batch_size to be a whole number from 1 to 16777216, got 10"),
        ({"batch_size": 2**24, "rows": range(10**30)}, r"from 0 to 16777215 in ascending order, got range\(0, 10"),
        ({"rows": []}, r"got \(\). Correct them"),
        ({"rows": [0, 8]}, r"Expected rows to be numbers from 0 to 7 in ascending order, got \(0, 8\). Correct them"),
        ({"rows": [-1, 2]}, r"got \(-1, 2\)"),
        ({"rows": [2, 1]}, r"got \(2, 1\)"),
        ({"rows": [1, 1]}, r"got \(1, 1\)"),
        ({"rows": range(0)}, r"got range\(0, 0\)"),
        ({"num_workers": -1}, "Expected num_workers to be a whole number from 0 to 512, got -1"),
        ({"num_workers": 10**6}, "Expected num_workers to be a whole number from 0 to 512, got 1000000"),
        ({"start_step": -1}, "Expected start_step to be a whole number from 0 to 1000000000000, got -1"),
        ({"start_step": 10**30, "num_steps": 10**30 + 1}, "Expected start_step to be a whole number from 0"),
        ({"num_steps": 10**30}, "Expected num_steps to be a whole number from 0"),
        ({"transform": None}, "Expected transform to be a function, got NoneType"),
        ({"shape_of": 3}, "Expected shape_of to be a function, got int"),
        ({"skip_corrupt": "yes"}, "Expected skip_corrupt to be True or False, got 'yes'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        train_batches(Numbers(21), **{"transform": draw, **TRAIN, **options})


def test_empty_data_set_is_refused():
    with pytest.raises(UserError, match="Expected examples in data set 'numbers'"):
        train_batches(Numbers(0), draw, **TRAIN)


def test_valid_belongs_to_the_batches():
    with pytest.raises(ValueError, match="must not return 'valid'"):
        train(transform=lambda example, rng: {"valid": np.float32(1)})


def test_close_ends_the_iteration():
    batches = train_batches(Numbers(21), draw, **{**TRAIN, "num_steps": 10**9})
    assert len(list(itertools.islice(batches, 3))) == 3
    batches.close()
    batches.close()
    assert list(batches) == []


def picture_batches(sizes, changes=None, batch_size=4, groups=None, **options):
    dataset, transform = Pictures(sizes, changes), SegmentationEvalTransform(3, short_side=16, long_side=64, size_multiple=8)
    groups = [None if size is None else transform.group(size) for size in image_sizes(dataset)] if groups is None else groups
    return list(eval_batches(dataset, transform, batch_size=batch_size, groups=groups, **options))


# Five groups: as views are padded to (16, 24), (24, 16) and (16, 40), and the first two also at twice the size.
SIZES = [(16, 20), (20, 16), (32, 42), (16, 24), (15, 22), (18, 16), (16, 33), (16, 17), (32, 48), (16, 23), (48, 32)]


@pytest.mark.parametrize("rows", [[range(4)], [range(2), range(2, 4)], [(0, 3), (1, 2)]])
def test_groups_share_shapes_and_every_example_counts_once(rows):
    whole = joined([picture_batches(SIZES, rows=r) for r in rows], rows)
    assert [batch["image_0"].shape[1:3] for batch in whole] == [(16, 24), (16, 24), (24, 16), (16, 24), (16, 40), (24, 16)]
    assert [batch["label"].shape[1:] for batch in whole] == [(16, 24), (16, 24), (24, 16), (32, 48), (16, 40), (48, 32)]
    counted = [tuple(size) for batch in whole for size, valid in zip(batch["label_size"], batch["valid"], strict=True) if valid]
    assert sorted(counted) == sorted(SIZES)
    for batch in whole:
        assert batch["label"].shape[0] == batch["valid"].shape[0] == 4
        assert not batch["label"][batch["valid"] == 0].any()
    assert_same(whole, picture_batches(SIZES, num_workers=1))


def test_groups_come_in_the_order_of_their_first_examples():
    groups = ["b", "a", None, "b", "c", "a", "b"]
    batches = list(eval_batches(Numbers(7), draw, batch_size=2, groups=groups))
    lines = [batch["label"][batch["valid"] == 1].tolist() for batch in batches]
    assert lines == [[0, 2], [3, 6], [1, 5], [4]]
    alone = list(eval_batches(Numbers(7), draw, batch_size=2))
    drawn = np.concatenate([batch["drawn"] for batch in alone])
    for batch in batches:
        counts = batch["valid"] == 1
        np.testing.assert_array_equal(batch["drawn"][counts], drawn[batch["label"][counts]])


def test_one_group_is_the_order_of_the_data_set():
    assert_same(
        list(eval_batches(Numbers(7), draw, batch_size=4, groups=["x"] * 7)), list(eval_batches(Numbers(7), draw, batch_size=4))
    )


def cut(index, length):
    return {index: {"image": Pictures(SIZES)[index]["image"][:length]}}


def test_rows_left_out_have_the_shape_of_their_group():
    # Pixels missing in the only picture of its group, in one of several, and a header missing.
    changes = {**cut(6, 100), **cut(1, 100), **cut(3, 10)}
    batches = picture_batches(SIZES, changes, skip_corrupt=True)
    counted = [
        tuple(size) for batch in batches for size, valid in zip(batch["label_size"], batch["valid"], strict=True) if valid
    ]
    assert sorted(counted) == sorted(size for index, size in enumerate(SIZES) if index not in changes)
    assert {batch["image_0"].shape[0] for batch in batches} == {4}
    parts = [picture_batches(SIZES, changes, skip_corrupt=True, rows=rows) for rows in ((0,), (1, 2), (3,))]
    assert_same(joined(parts, [(0,), (1, 2), (3,)]), batches)


def test_corrupt_pictures_of_groups_are_named():
    with pytest.raises(
        UserError, match=r"data set 'pictures', split 'validation', to be readable, got a corrupt one at index 6\."
    ):
        picture_batches(SIZES, cut(6, 100))


def test_groups_need_one_entry_an_example():
    with pytest.raises(UserError, match="one entry for each of the 11 examples, got 2"):
        picture_batches(SIZES, groups=["a", "b"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_that_does_not_fit_is_named_and_never_skipped(workers):
    changes = {2: {"mask": encode(np.full(SIZES[2], 7, np.uint8))}}
    with pytest.raises(UserError) as caught:
        picture_batches(SIZES, changes, skip_corrupt=True, num_workers=workers)
    assert str(caught.value) == (
        "index 2 of data set 'pictures', split 'validation': Expected the values of 3 classes in the mask (0 to 2, 255 for no "
        "class), got 7. Correct the mask or the number of classes."
    )
