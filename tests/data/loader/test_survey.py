"""Classes that no training example shows are named as training starts, and masks that show nothing to learn are refused."""

import numpy as np
import pytest

from paca_jax.data import Dataset, SegmentationTrainTransform, train_batches
from paca_jax.data.loader import survey
from paca_jax.errors import UserError
from tests.data.tiny import Numbers, draw, encode

IMAGE = encode(np.zeros((2, 4, 3), np.uint8))
ARGUMENTS = {"batch_size": 2, "seed": 0, "start_step": 0, "num_steps": 1}


class Masks(Dataset):
    """Example i has a mask of the i-th values, or the i-th file."""

    name, split = "masks", "train"

    def __init__(self, class_names, masks):
        self.names, self.masks, self.reads = class_names, masks, []

    class_names = property(lambda self: self.names)

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        self.reads.append(index)
        mask = self.masks[index]
        return {"image": IMAGE, "mask": mask if isinstance(mask, bytes) else encode(np.resize(mask, (2, 4)).astype(np.uint8))}


class Unseen(Numbers):
    class_names = ("ant", "bee", "cat")

    def unseen_classes(self):
        return ("ant", "cat")


def start(dataset, transform=None, **options):
    transform = transform or SegmentationTrainTransform(4, dataset.num_classes, short_side=4, long_side=8, **options)
    train_batches(dataset, transform, **ARGUMENTS).close()


def messages(caplog, dataset, transform=None, **options):
    start(dataset, transform, **options)
    return [record.getMessage() for record in caplog.records]


def test_a_data_set_that_knows_its_unseen_classes_names_them(caplog):
    assert messages(caplog, Unseen(4), draw) == [
        "No example of data set 'numbers', split 'train' shows 2 of 3 classes, 'ant', 'cat'."
    ]
    caplog.clear()
    assert messages(caplog, Numbers(4), draw) == []


@pytest.mark.parametrize(
    ("names", "values", "ignore_zero", "unseen", "write"),
    [
        (("ground", "object"), [0, 255], False, "1 of 2 classes, 'object'", "for 'object', as in masks of 0 and 255, write 1"),
        (("ground", "object"), [255, 1], False, "1 of 2 classes, 'ground'", "for 'ground', as in masks of 0 and 255, write 0"),
        (("a", "b", "c"), [0, 255], False, "2 of 3 classes, 'b', 'c'", "for one of these classes, .* write its number"),
        (("a", "b"), [0, 1, 255], True, "1 of 2 classes, 'b'", "for 'b', as in masks of 0 and 255, write 2"),
        (("a", "b"), [0, 255], True, "2 of 2 classes, 'a', 'b'", "for one of these classes, .* write its number"),
        (("a", "b"), [255], False, "2 of 2 classes, 'a', 'b'", "for one of these classes, .* write its number"),
    ],
)
def test_masks_with_nothing_to_learn_are_refused(names, values, ignore_zero, unseen, write):
    with pytest.raises(
        UserError, match=rf"none of them shows {unseen}\. Pixels of 255 occur, .* If 255 stands {write} instead"
    ):
        start(Masks(names, [values] * 5), ignore_zero=ignore_zero)


def test_masks_of_zeros_that_stand_for_no_class_are_refused():
    with pytest.raises(
        UserError, match=r"none of them shows 2 of 2 classes.* All pixels count as no class: write class numbers"
    ):
        start(Masks(("a", "b"), [[0]] * 3), ignore_zero=True)


def test_unseen_classes_of_masks_are_named(caplog):
    of = "of data set 'masks', split 'train' shows"
    assert messages(caplog, Masks("abcd", [[0, 3], [3], [255]])) == [
        f"None of the 3 masks that were read {of} 2 of 4 classes, 'b', 'c'."
    ]
    caplog.clear()
    assert messages(caplog, Masks("ab", [[0], [0]])) == [f"None of the 2 masks that were read {of} 1 of 2 classes, 'b'."]
    caplog.clear()
    (message,) = messages(caplog, Masks("abc", [[0, 255], [1]]))
    assert message == (
        f"None of the 2 masks that were read {of} 1 of 3 classes, 'c'. Pixels of 255 occur, which count as no class. If 255 "
        "stands for 'c', as in masks of 0 and 255, write 2 instead."
    )


@pytest.mark.parametrize("masks", [[[0, 1]], [[0]] * 20 + [[1]], [[1, 255], [0, 255]]])
def test_nothing_is_said_if_every_class_is_seen(caplog, masks):
    assert messages(caplog, Masks("ab", masks)) == []


def test_many_masks_are_read_in_part(caplog, monkeypatch):
    monkeypatch.setattr(survey, "_MASKS", 8)
    monkeypatch.setattr(survey, "_MASKS_AT_ONCE", 4)
    dataset = Masks("abc", [[0, 1]] * 40)
    assert "None of the 8 masks, of 40 that there are, that were read of data set" in messages(caplog, dataset)[0]
    every = Masks("abc", [[0, 1, 2]] * 40)
    survey.report_unseen_classes(every, SegmentationTrainTransform(4, 3))
    assert len(every.reads) == 4


@pytest.mark.parametrize("common", [[0, 255], [255]])
def test_masks_are_all_read_before_they_are_refused(monkeypatch, caplog, common):
    monkeypatch.setattr(survey, "_MASKS", 8)
    monkeypatch.setattr(survey, "_MASKS_AT_ONCE", 4)
    for place in range(0, 40, 13):
        assert messages(caplog, Masks("ab", [[0, 1] if i == place else common for i in range(40)])) == []
    dataset = Masks("ab", [common] * 40)
    with pytest.raises(UserError, match="none of them shows"):
        start(dataset)
    assert sorted(dataset.reads[:40]) == list(range(40))


def test_unreadable_masks_do_not_count(caplog):
    damaged = encode(np.zeros((2, 4), np.uint8))[:40]
    assert "None of the 2 masks" in messages(caplog, Masks("abc", [[0, 1], damaged, [0, 1]]))[0]
    caplog.clear()
    survey.report_unseen_classes(Masks("ab", [damaged]), SegmentationTrainTransform(4, 2))  # training says so
    assert not caplog.records


def test_a_mask_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="index 1 of data set 'masks', split 'train': Expected the values of 2 classes"):
        start(Masks("ab", [[0], [7]]))
