import numpy as np
import pytest

from paca_jax.data import DetectionTrainTransform, ObjectDataset, decode_mask, image_sizes, open_dataset, unpack_masks
from paca_jax.data.codecs.rle import decode
from paca_jax.errors import UserError
from tests.data.tiny import encode, prepare_tfds
from tests.runs import ROOT, run_code

FEATURES = ("image", "objects")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with small `scenes`, and `boxes`, whose objects have no numbers."""
    import tensorflow_datasets as tfds

    from paca_jax.data.scenes.builder import Scenes

    folder = tmp_path_factory.mktemp("prepared")
    Scenes(data_dir=str(folder), file_format="array_record", scenes={"train": 6, "test": 4}).download_and_prepare()
    picture = encode(np.zeros((4, 6, 3), np.uint8))
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "instances": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "objects": tfds.features.Sequence({"label": tfds.features.ClassLabel(names=["x"])}),
    }
    example = {"image": picture, "instances": encode(np.zeros((4, 6), np.uint8)), "objects": [{"label": 0}]}
    prepare_tfds(folder, "boxes:1.0.0", features, {"train": [example] * 2}, "array_record")
    return folder


def test_scenes_have_the_form_of_coco(prepared):
    dataset = open_dataset("scenes", "train", str(prepared), FEATURES)
    records = open_dataset("scenes", "train", str(prepared), ("image", "instances", "objects"))
    assert isinstance(dataset, ObjectDataset)
    assert (dataset.name, dataset.split, len(dataset), dataset.num_classes) == ("scenes", "train", 6, 10)
    assert dataset.class_names == open_dataset("scenes", "train", str(prepared), ("image", "mask")).class_names[1:]
    assert dataset.category_ids == tuple(range(1, 11))
    assert dataset.sizes.tolist() == [list(size) for size in image_sizes(records)]
    for index in range(6):
        record, example = records[index], dataset[index]
        objects, instances = example["objects"], decode_mask(record["instances"])
        assert example.keys() == {"image", "objects", "index"}
        assert (example["index"], objects["image_id"], example["image"]) == (index, index, record["image"])
        assert len(objects["boxes"]) == dataset.num_objects[index] == instances.max()
        assert objects["labels"].tolist() == record["objects"]["label"].tolist()
        assert not objects["crowd"].any()
        for number, (box, segments, area) in enumerate(
            zip(objects["boxes"], objects["segments"], objects["area"], strict=True), 1
        ):
            bitmap = decode(segments)
            np.testing.assert_array_equal(bitmap, instances == number)
            rows, columns = np.nonzero(bitmap)
            np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1e-4)
            assert area == bitmap.sum()


def test_classes_without_objects_are_unseen(prepared):
    dataset = open_dataset("scenes", "train", str(prepared), FEATURES)
    seen = {dataset.class_names[label] for index in range(6) for label in dataset.objects(index)["labels"]}
    assert 0 < len(seen) < 10
    assert dataset.unseen_classes() == tuple(name for name in dataset.class_names if name not in seen)


def test_annotations_are_coco_s(prepared):
    dataset = open_dataset("scenes", "test", str(prepared), FEATURES)
    for index in range(4):
        objects = dataset.objects(index)
        annotations = dataset.annotations(index)
        assert len(annotations) == len(objects["boxes"])
        for annotation, box, label in zip(annotations, objects["boxes"], objects["labels"], strict=True):
            left, top, width, height = annotation["bbox"]
            np.testing.assert_allclose([left, top, left + width, top + height], box, rtol=1e-6)
            assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (index, label + 1, 0)


def test_one_transform_serves_them(prepared):
    dataset = open_dataset("scenes", "train", str(prepared), FEATURES)
    size = tuple(dataset.sizes[0].tolist())
    short, long = min(size), max(size)
    transform = DetectionTrainTransform((short,), long, (short,), crop=None, flip=False)
    result = transform(dataset[0], np.random.default_rng(0))
    assert tuple(result["size"]) == size
    count = result["object_valid"].sum()
    assert count == dataset.num_objects[0]
    masks = unpack_masks(result["masks"])[:count, : size[0], : size[1]]
    np.testing.assert_array_equal(masks, [decode(segments) for segments in dataset.objects(0)["segments"]])


def test_reading_objects_imports_no_tensorflow(prepared):
    code = (
        "import sys; from paca_jax.data import open_dataset;"
        f"example = open_dataset('scenes', 'train', {str(prepared)!r}, ('image', 'objects'))[2];"
        "print(sorted(example), 'tensorflow' in sys.modules)"
    )
    assert run_code(code).strip() == "['image', 'index', 'objects'] False"


def test_other_data_sets_are_reported(prepared):
    with pytest.raises(
        UserError, match=r"Expected the objects of data set 'boxes' to have .*, missing 'bbox', 'id', 'area'\. Choose"
    ):
        open_dataset("boxes", "train", str(prepared), FEATURES)
    with pytest.raises(UserError, match=r"to have 'image', 'instances', 'objects', it has .*, missing 'instances', 'objects'"):
        open_dataset("fashion_mnist_small", "train", str(ROOT / "datasets"), FEATURES)
