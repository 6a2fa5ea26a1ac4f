import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paca_jax.data import encode_bitmap, open_dataset
from paca_jax.tasks.detection.metrics import METRICS, Collected, Detections, evaluate, results_json
from tests.data.coco_folder import content, crowd, square, write_folder

SIZES = {11: (60, 90), 4: (110, 80), 8: (64, 64), 6: (130, 120), 20: (40, 40)}
JSON = "annotations/instances_val2017.json"


def triangle(number, image, left, top, side, category):
    corners = [left, top, left + side, top, left + side / 3, top + side]
    return square(number, image, left, top, side, category, segmentation=[corners], area=side * side / 2)


ANNOTATIONS = [
    square(1, 11, 5.5, 7.25, 30, 3),
    triangle(2, 4, 10, 30.3, 50, 7),
    square(3, 8, 20, 20, 20, 90),
    crowd(4, 11, SIZES[11]),
    square(5, 6, 4, 4, 115.7, 3),
    square(6, 6, 60, 70, 33.3, 7),
    square(7, 11, 50, 12.2, 31, 7),
    square(8, 4, 2, 2, 9, 3),
]  # nothing is in 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("coco"), content(SIZES, copy.deepcopy(ANNOTATIONS)), JSON, "val2017")


@pytest.fixture(scope="module")
def dataset(folder):
    return open_dataset("coco", "validation", str(folder), ("image", "objects"))


def perfect(dataset):
    """Returns the true objects except crowds, as detections."""
    found = Collected()
    for index in range(len(dataset)):
        objects = dataset.objects(index)
        rows = np.flatnonzero(~objects["crowd"])
        masks = []
        for row in rows:
            segments = objects["segments"][row]
            if isinstance(segments, list):
                polygons = [polygon.tolist() for polygon in segments]
                segments = coco_mask.merge(coco_mask.frPyObjects(polygons, *objects["size"]))
            masks.append(encode_bitmap(coco_mask.decode(segments)))
        found[index] = Detections(objects["boxes"][rows], np.linspace(0.9, 0.5, len(rows)), objects["labels"][rows], masks)
    return found


def guesses(dataset, seed):
    """Returns the true objects shifted, tripled and partly of wrong classes, and boxes within the crowd."""
    rng = np.random.default_rng(seed)
    found = Collected()
    for index, right in perfect(dataset).items():
        height, width = dataset.sizes[index]
        boxes = np.repeat(right.boxes, 3, 0) + rng.normal(0, 3, (3 * len(right.boxes), 4)).astype(np.float32)
        boxes = np.concatenate([boxes, [[2, 3, 20, 30], [0, 0, 12, 50]]])
        boxes = np.clip(boxes, 0, np.array([width, height, width, height])).astype(np.float32)
        labels = np.concatenate([np.repeat(right.labels, 3), [1, 1]])
        labels = np.where(rng.random(len(labels)) < 0.2, rng.integers(0, 3, len(labels)), labels)
        masks = []
        for left, top, end, bottom in boxes.round().astype(int):
            bitmap = np.zeros((height, width), bool)
            bitmap[top:bottom, left:end] = rng.random() < 0.9
            masks.append(encode_bitmap(bitmap))
        found[index] = Detections(boxes, rng.random(len(boxes)).astype(np.float32), labels, masks)
    return found


def by_hand(folder, results):
    """Returns the twelve numbers of each task from files, as in COCO's notebook."""
    numbers = []
    for task in ("bbox", "segm"):
        given = copy.deepcopy(results)
        if task == "segm":
            for result in given:
                del result["bbox"]  # else the areas would be those of the boxes
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(folder / JSON))
            evaluation = COCOeval(truth, truth.loadRes(given), task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        numbers += evaluation.stats.tolist()
    return dict(zip(METRICS, numbers, strict=True))


def test_perfect_detections_are_worth_one(dataset):
    numbers = evaluate(dataset, perfect(dataset))
    assert tuple(numbers) == METRICS
    assert METRICS[:6] == ("box_ap", "box_ap50", "box_ap75", "box_ap_small", "box_ap_medium", "box_ap_large")
    assert METRICS[18:] == ("mask_ar1", "mask_ar10", "mask_ar100", "mask_ar_small", "mask_ar_medium", "mask_ar_large")
    ones = [name for name in METRICS if "ar1" not in name or name.endswith(("ar10", "ar100"))]
    assert {name: numbers[name] for name in ones} == pytest.approx(dict.fromkeys(ones, 1.0))


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_those_of_coco(folder, dataset, seed):
    found = guesses(dataset, seed)
    numbers = evaluate(dataset, found)
    assert numbers == by_hand(folder, json.loads(json.dumps(results_json(dataset, found))))
    assert 0.05 < numbers["box_ap"] < 0.95
    assert 0.05 < numbers["mask_ap"] < 0.95
    assert numbers["box_ap"] != numbers["mask_ap"]


def test_results_are_in_coco_s_format(dataset):
    found = perfect(dataset)
    results = results_json(dataset, found)
    assert [result["image_id"] for result in results] == [11, 11, 4, 4, 8, 6, 6]
    assert [result["category_id"] for result in results] == [3, 7, 7, 3, 90, 3, 7]
    assert results[0]["bbox"] == [5.5, 7.25, 30, 30]
    assert results[0]["score"] == 0.9
    assert results[0]["segmentation"] == found[0].masks[0]
    assert results[0]["segmentation"]["size"] == [60, 90]


def test_what_lies_in_a_crowd_counts_neither_way(dataset):
    """Boxes in the first picture's crowd are ignored if they have its class, and false positives otherwise."""
    inside = [(1, 1, 20, 40), (20, 5, 44, 30)]
    numbers = []
    for label in (1, 0):
        found = perfect(dataset)
        first = found[0]
        masks = [encode_bitmap(np.pad(np.ones((20, 20)), ((3, 37), (4, 66)))) for _ in inside]
        found[0] = Detections(
            np.concatenate([first.boxes, inside]),
            np.concatenate([first.scores, [0.99, 0.98]]),
            np.concatenate([first.labels, [label] * 2]),
            [*first.masks, *masks],
        )
        numbers.append(evaluate(dataset, found))
    for kind in ("box_ap", "mask_ap"):
        assert numbers[0][kind] == pytest.approx(1)
        assert numbers[1][kind] < 0.9


def test_pictures_without_detections_count(folder, dataset):
    found = guesses(dataset, 1)
    del found[1]
    found[3] = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), [])
    numbers = evaluate(dataset, found)
    assert numbers == by_hand(folder, results_json(dataset, found))
    assert numbers["box_ar100"] < evaluate(dataset, guesses(dataset, 1))["box_ar100"]


def test_no_detections_at_all_are_worth_nothing(dataset):
    numbers = evaluate(dataset, Collected())
    assert set(numbers) == set(METRICS)
    assert set(numbers.values()) == {0.0}


def test_nothing_is_printed(dataset, capsys):
    evaluate(dataset, perfect(dataset))
    assert capsys.readouterr() == ("", "")


def test_what_processes_have_collected_is_merged(dataset):
    found = guesses(dataset, 2)
    parts = [Collected({index: found[index] for index in indices}) for indices in ([4, 0], [1, 2, 0], [], [3, 1])]
    merged = Collected.merged([part.to_bytes() for part in parts])
    assert sorted(merged) == list(range(5))
    assert results_json(dataset, merged) == results_json(dataset, found)
    assert evaluate(dataset, merged) == evaluate(dataset, found)


def test_objects_without_a_mask_count_for_boxes_alone(dataset, tmp_path):
    holds = content(SIZES, copy.deepcopy(ANNOTATIONS))
    holds["annotations"][0]["segmentation"] = [[1, 2, 3]]
    broken = open_dataset("coco", "validation", str(write_folder(tmp_path, holds, JSON, "val2017")), ("image", "objects"))
    found = perfect(dataset)
    first = found[0]
    found[0] = Detections(first.boxes[1:], first.scores[1:], first.labels[1:], first.masks[1:])
    whole, part = evaluate(dataset, found), evaluate(broken, found)
    assert whole["box_ap"] == part["box_ap"] < 1
    assert whole["mask_ap"] < part["mask_ap"]
    assert part["mask_ap"] == pytest.approx(1)


def test_scenes_are_their_own_truth(tmp_path):
    from paca_jax.data.scenes.builder import Scenes

    Scenes(data_dir=str(tmp_path), file_format="array_record", scenes={"train": 1, "test": 5}).download_and_prepare()
    scenes = open_dataset("scenes", "test", str(tmp_path), ("image", "objects"))
    numbers = evaluate(scenes, perfect(scenes))
    assert numbers["box_ap"] == pytest.approx(1)
    assert numbers["mask_ap"] == pytest.approx(1)
    assert np.isnan(numbers["mask_ap_large"]) or numbers["mask_ap_large"] == pytest.approx(1)


def test_sizes_without_objects_have_no_value(tmp_path):
    holds = content(SIZES, [square(1, 11, 5, 7, 30), square(2, 8, 20, 20, 20, 90)])
    small = open_dataset("coco", "validation", str(write_folder(tmp_path, holds, JSON, "val2017")), ("image", "objects"))
    numbers, as_in_coco = evaluate(small, perfect(small)), by_hand(tmp_path, results_json(small, perfect(small)))
    without = {name for name, value in numbers.items() if np.isnan(value)}
    assert without == {name for name, value in as_in_coco.items() if value == -1}
    assert without == {name for name in METRICS if name.endswith(("medium", "large"))}
    assert all(numbers[name] == as_in_coco[name] for name in set(METRICS) - without)
