"""What labelling tools write into a COCO file: read right, or refused in one sentence that names the entry."""

import copy
import json
import math
import re

import numpy as np
import pytest

from paca_jax.data import DetectionTrainTransform, encode_bitmap, open_dataset
from paca_jax.errors import UserError
from tests.data.coco_folder import content, crowd, square, write_folder

FEATURES = ("image", "objects")
SIZES = {12: (40, 60), 5: (50, 40)}
ANNOTATIONS = [square(100, 12, 10.25, 4.5, 12.37), crowd(101, 5, SIZES[5]), square(102, 12, 30, 20, 15, category=7)]
JSON = "annotations/instances_train2017.json"
BOX = [30, 20, 15, 15]  # of annotation 102


@pytest.fixture
def holds():
    return copy.deepcopy(content(SIZES, ANNOTATIONS))


@pytest.fixture
def folder(holds, tmp_path):
    return write_folder(tmp_path, holds, JSON, "train2017")


def opened(folder, holds, features=FEATURES):
    (folder / JSON).write_text(json.dumps(holds))
    return open_dataset("coco", "train_all", str(folder), features)


def change(*path, **values):
    def apply(holds):
        entry = holds
        for key in path:
            entry = entry[key]
        entry |= values

    return apply


CATEGORY = ("categories", 0)
IMAGE = ("images", 0)
ANNOTATION = ("annotations", 0)
CROWD = ("annotations", 1, "segmentation")
UNQUOTED = "Write numbers without quotes"
WHOLE_ID = "Expected a whole number as the id of every"
ISCROWD = "Expected 0 or 1 as the iscrowd of annotation 100 of image 12"
AREA = "Expected a number, 0 or more, as the area of annotation 100 of image 12"
BBOX = r"Expected a bbox of four numbers \(left, top, width, height\) in pixels of annotation 100 of image 12"
POINTS = "Expected coordinates in pixels in the polygons of annotation 100 of image 12"
NESTED = "Expected a list of polygons, each a list x, y, x, y, ..., or run lengths as the segmentation of annotation 100 of"
RUNS = r"Expected run lengths of 40x50 pixels \(width x height\) of annotation 101 of image 5"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(*ANNOTATION, id="x"), f"{WHOLE_ID} annotation .*, got 'x' as the id of entry 0"),
        (change(*ANNOTATION, id="7"), f"{WHOLE_ID} annotation .*, got '7' .*{UNQUOTED}"),
        (change(*ANNOTATION, id=True), f"{WHOLE_ID} annotation .*, got True"),
        (change(*ANNOTATION, id=1.5), f"{WHOLE_ID} annotation .*, got 1.5"),
        (change(*IMAGE, id="12"), f"{WHOLE_ID} image .*{UNQUOTED}"),
        (change(*IMAGE, id=2**63), f"{WHOLE_ID} image .*, got 9223372036854775808"),
        (change(*CATEGORY, id=math.nan), f"{WHOLE_ID} category .*, got nan"),
        (change(annotations=[4]), f"{WHOLE_ID} annotation .*, got 4 as the id of entry 0"),
        (change(*ANNOTATION, id=102.0), "every annotation to have a unique id .*, got annotation 102 twice"),
        (change(*IMAGE, id=5), "every image to have a unique id .*, got image 5 twice"),
        (change(*CATEGORY, id=3), "every category to have a unique id .*, got category 3 twice"),
        (change(*CATEGORY, name="ant"), "every category to have a unique name .*, got 'ant' for categories 7 and 90. Rename"),
        (change(*CATEGORY, name=3), "Expected a string as 'name' of category 7 .*, got 3"),
        (change(*CATEGORY, name="  "), "Expected a string as 'name' of category 7 .*, got '  '"),
        (change(*CATEGORY, name="\ud800"), "Expected a string as 'name' of category 7"),
        (change(categories=[]), "Expected categories in the COCO file .*, got none"),
        (change(*IMAGE, width=0), "Expected a whole number of pixels, 1 or more, as the width of image 12 .*, got 0"),
        (change(*IMAGE, width=-60), "as the width of image 12 .*, got -60"),
        (change(*IMAGE, height="40"), f"as the height of image 12 .*, got '40'. {UNQUOTED}"),
        (change(*IMAGE, height=True), "as the height of image 12 .*, got True"),
        (change(*IMAGE, height=math.inf), "as the height of image 12 .*, got inf"),
        (change(*IMAGE, height=40.5), "as the height of image 12 .*, got 40.5"),
        (change(*IMAGE, width=None), "as the width of image 12 .*, got None"),
        (change(*IMAGE, file_name=None), "Expected a string as 'file_name' of image 12 .*, got None"),
        (change(*IMAGE, file_name=12), "Expected a string as 'file_name' of image 12 .*, got 12"),
        (change(*IMAGE, file_name="a\0b"), "Expected a string as 'file_name' of image 12"),
        (change(images={}), "got JSON without 'images'. Give an instances file"),
        (change(images=[]), "Expected the image_id of annotation 100 of image 12 to be listed"),
        (change(*ANNOTATION, category_id=8), "Expected the category_id of annotation 100 of image 12 to be listed .*, got 8"),
        (change(*ANNOTATION, category_id="3"), f"Expected the category_id of annotation 100 .*, got '3'. {UNQUOTED}"),
        (change(*ANNOTATION, category_id=True), "Expected the category_id of annotation 100 .*, got True"),
        (change(*ANNOTATION, image_id=77), "Expected the image_id of annotation 100 of image 77 to be listed"),
        (change(*ANNOTATION, image_id=[]), r"to be listed in the COCO file .*, got \[\]. Correct the file"),
        (change(*ANNOTATION, image_id="12"), f"Expected the image_id of annotation 100 of image '12' .*{UNQUOTED}"),
        (change(*ANNOTATION, iscrowd="0"), f"{ISCROWD} .*, got '0'. {UNQUOTED}"),
        (change(*ANNOTATION, iscrowd=False), f"{ISCROWD} .*, got False"),
        (change(*ANNOTATION, iscrowd=2), f"{ISCROWD} .*, got 2"),
        (change(*ANNOTATION, iscrowd=[]), rf"{ISCROWD} .*, got \[\]"),
        (change(*ANNOTATION, area="big"), f"{AREA} .*, got 'big'"),
        (change(*ANNOTATION, area="400"), f"{AREA} .*{UNQUOTED}"),
        (change(*ANNOTATION, area=-1), f"{AREA} .*, got -1"),
        (change(*ANNOTATION, area=True), f"{AREA} .*, got True"),
        (change(*ANNOTATION, area=math.nan), f"{AREA} .*, got nan"),
        (change(*ANNOTATION, area=math.inf), f"{AREA} .*, got inf"),
        (change(*ANNOTATION, bbox=[1, 2, 3]), BBOX),
        (change(*ANNOTATION, bbox=[]), BBOX),
        (change(*ANNOTATION, bbox={"x": 1}), BBOX),
        (change(*ANNOTATION, bbox=[1, 2, 3, math.nan]), BBOX),
        (change(*ANNOTATION, bbox=[1, 2, True, 3]), BBOX),
        (change(*ANNOTATION, bbox=[1, 2, "3", "4"]), f"{BBOX} .*{UNQUOTED}"),
        (change(*ANNOTATION, bbox=None, segmentation=[]), "Expected a bbox or a segmentation of annotation 100 of image 12"),
        (change(*ANNOTATION, segmentation=[1, 2, 3]), NESTED),
        (change(*ANNOTATION, segmentation="x"), NESTED),
        (change(*ANNOTATION, segmentation=0), NESTED),
        (change(*ANNOTATION, segmentation=""), NESTED),
        (change(*ANNOTATION, segmentation=[[1, 2, math.nan, 4, 5, 6]]), POINTS),
        (change(*ANNOTATION, segmentation=[[1, 2, 1e9, 4, 5, 6]]), POINTS),
        (change(*ANNOTATION, segmentation=[[1, 2, 10**400, 4, 5, 6]]), POINTS),
        (change(*ANNOTATION, segmentation=[["1", "2"] * 3]), POINTS),
        (change(*ANNOTATION, segmentation=[[1, 2, True, 4, 5, 6]]), POINTS),
        (change(*ANNOTATION, segmentation=[[[1, 2], [9, 2], [9, 9]]]), POINTS),
        (
            change(*ANNOTATION, segmentation=[[1, 2], [9, 2], [9, 9]]),
            NESTED,
        ),
        (change(*ANNOTATION, segmentation={}), "Expected run lengths of 60x40 pixels .* of annotation 100"),
        (change(*CROWD, counts=[5, 7]), RUNS),
        (change(*CROWD, counts=[-5, 2005]), RUNS),
        (change(*CROWD, counts=[0, 1000.5, 999.5]), RUNS),
        (change(*CROWD, counts=[False, 1000, 1000]), RUNS),
        (change(*CROWD, counts=["0", "1000", "1000"]), RUNS),
        (change(*CROWD, counts="~zz0"), RUNS),
        (change(*CROWD, counts="b'0Xo000'"), RUNS),
        (change(*CROWD, counts=None), RUNS),
        (change(*CROWD, size=[40, 50]), RUNS),
        (change(*CROWD, size=None), RUNS),
        (change(annotations=None), "got JSON without 'annotations'. Give an instances file"),
    ],
)
def test_a_value_of_another_kind_is_refused(holds, folder, damage, message):
    damage(holds)
    with pytest.raises(UserError) as caught:
        opened(folder, holds)
    sentence = str(caught.value)
    assert re.search(message, sentence)
    assert str(folder / JSON) in sentence
    assert "\n" not in sentence


def test_a_long_value_is_cut_short(holds, folder):
    holds["annotations"][0]["bbox"] = list(range(10**5))
    with pytest.raises(UserError) as caught:
        opened(folder, holds)
    assert len(str(caught.value)) < 600


def test_json_has_one_kind_of_number(holds, folder):
    expected = opened(folder, holds).annotations(0)
    as_floats = json.loads(json.dumps(holds), parse_int=float)
    dataset = opened(folder, as_floats)
    assert dataset.image_ids.tolist() == [12, 5]
    assert dataset.category_ids == (3, 7, 90)
    assert dataset.annotations(0) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_decoded_by_its_mark(holds, folder, encoding):
    holds["categories"][0]["name"] = "Кот"
    (folder / JSON).write_bytes(json.dumps(holds, ensure_ascii=False).encode(encoding))
    assert open_dataset("coco", "train_all", str(folder), FEATURES).class_names == ("bee", "Кот", "ant")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"", lambda data: b'["\xf6"]', lambda data: b"[" * 10**5]
)
def test_what_is_no_json_is_refused(folder, damage):
    (folder / JSON).write_bytes(damage((folder / JSON).read_bytes()))
    with pytest.raises(UserError, match=r"got a file that is not JSON \(.*\)\. Export it again, in UTF-8\.$"):
        open_dataset("coco", "train_all", str(folder), FEATURES)


def test_categories_may_begin_with_0_be_unused_and_lack_a_supercategory(holds, folder):
    holds["categories"] = [{"id": 0, "name": "all", "supercategory": "none"}, {"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
    dataset = opened(folder, holds)
    assert dataset.class_names == ("all", "a", "b")
    assert dataset.objects(0)["labels"].tolist() == [1, 2]
    assert dataset.unseen_classes() == ("all",)


@pytest.mark.parametrize("missing", [(), None])
def test_what_follows_from_the_mask_may_be_missing(holds, folder, missing):
    counts = np.zeros((40, 60), int)
    counts[10:14, 20:25] = 1
    runs = [20 * 40 + 10, *[4, 36] * 4, 4]
    holds["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": [*runs, 40 * 60 - sum(runs)]}
    holds["annotations"][2]["segmentation"] = [[30, 20, 45, 20, 45, 35, 30, 35], [1, 2, 5, 2, 5, 6, 1, 6]]
    for annotation in (holds["annotations"][0], holds["annotations"][2]):
        for key in ("iscrowd", "area", "bbox"):
            if missing is None:
                annotation[key] = None
            else:
                del annotation[key]
    dataset = opened(folder, holds)
    assert dataset.coco_boxes(0).tolist() == [[20, 10, 5, 4], [1, 2, 44, 33]]
    objects = dataset.objects(0)
    assert objects["area"].tolist() == [20, 225 + 16]
    assert not objects["crowd"].any()


def test_without_a_mask_the_area_is_that_of_the_box(holds, folder):
    del holds["annotations"][2]["area"], holds["annotations"][2]["segmentation"]
    assert opened(folder, holds).objects(0)["area"][1] == 225


LOST = [[[3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6, 7]], [[60, 3, 70, 3, 70, 9]], [[3, -9, 8, -9, 8, 0]]]


@pytest.mark.parametrize("segmentation", LOST)
def test_polygons_that_enclose_nothing_are_left_out_and_counted(holds, folder, caplog, segmentation):
    holds["annotations"][0]["segmentation"] = segmentation + ANNOTATIONS[0]["segmentation"]
    holds["annotations"][2]["segmentation"] = segmentation
    objects = opened(folder, holds).objects(0)
    assert [polygon.tolist() for polygon in objects["segments"][0]] == ANNOTATIONS[0]["segmentation"]
    assert objects["segments"][1] == []
    said = caplog.text
    assert "Left out 2 polygons of the COCO file" in said
    assert "The first is of annotation 100 of image 12." in said
    assert "Of the 3 objects of split 'train_all'" in said
    assert "1 without a mask (the first is annotation 102 of image 12)" in said


NO_MASKS = [[[]], [], None, {"size": [40, 60], "counts": [2400]}, encode_bitmap(np.zeros((40, 60)))]


@pytest.mark.parametrize("segmentation", NO_MASKS)
def test_an_object_may_have_no_mask(holds, folder, caplog, segmentation):
    holds["annotations"][0]["segmentation"] = segmentation
    assert opened(folder, holds).objects(0)["segments"][0] == []
    assert "1 without a mask (the first is annotation 100 of image 12)" in caplog.text
    assert "polygons" not in caplog.text


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bbox": [45, 35, -15, -15]}, "1 with a box below one pixel in width or height"),
        ({"bbox": [0.5, 0.3, 0.2, 0.1]}, "1 with a box below one pixel in width or height"),
        ({"bbox": [60, 3, 5, 5]}, "1 with a box outside the picture"),
        ({"bbox": [3, -5, 5, 5]}, "1 with a box outside the picture"),
        ({"area": 0}, "1 with an area of 0"),
    ],
)
def test_objects_that_training_leaves_out_are_counted(holds, folder, caplog, values, reason):
    holds["annotations"][2] |= values
    dataset = opened(folder, holds)
    assert f"Of the 3 objects of split 'train_all' in the COCO file {folder / JSON}, training leaves out " in caplog.text
    assert reason in caplog.text
    assert "(the first is annotation 102 of image 12)" in caplog.text
    assert dataset.unseen_classes() == ("cat", "ant")
    trained = DetectionTrainTransform((48,), 64, (48,), crop=None, flip=False)(dataset[0], np.random.default_rng(0))
    assert trained["labels"][trained["object_valid"]].tolist() == [0]
    holds["annotations"][0] |= {"area": 0}
    with pytest.raises(UserError, match="Expected objects to train on, got 3 objects of split 'train_all' in the COCO file"):
        opened(folder, holds)


@pytest.mark.parametrize("annotations", [[], [dict(ANNOTATIONS[1])], [ANNOTATIONS[0] | {"iscrowd": 1}]])
def test_crowds_alone_are_nothing_to_train_on(holds, folder, annotations):
    holds["annotations"] = annotations
    reason = r"1 with iscrowd 1 \(the first is annotation \d+ of image \d+\)" if annotations else "none"
    with pytest.raises(
        UserError, match=rf"Expected objects to train on, got {len(annotations)} objects .*: {reason}\. Correct"
    ):
        opened(folder, holds)


def test_boxes_of_corners_are_noticed(holds, folder, caplog):
    for annotation in holds["annotations"][::2]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [left, top, left + width, top + height]
    opened(folder, holds)
    assert "1 reach beyond their picture (the first is annotation 102 of image 12). A bbox is left, top, width" in caplog.text


def test_nothing_is_said_of_a_file_that_is_all_right(holds, folder, caplog):
    opened(folder, holds)
    assert caplog.text == ""


def test_boxes_alone_need_no_masks(holds, folder, caplog):
    for annotation in holds["annotations"]:
        annotation["segmentation"] = []
    dataset = opened(folder, holds, ("image", "boxes"))
    assert not dataset.has_masks
    assert dataset.objects(0)["segments"][1][0].tolist() == [30, 20, 45, 20, 45, 35, 30, 35]
    assert dataset.objects(0)["boxes"][1].tolist() == [30, 20, 45, 35]
    assert caplog.text == ""
