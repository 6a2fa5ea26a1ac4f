import jax
import numpy as np
import pytest

from configs.photos import get_config
from paca_jax.errors import UserError
from paca_jax.tasks.classification.metrics import EvalMetrics
from paca_jax.train.run import prepare
from tests.data.tiny import encode
from tests.runs import overridden


@pytest.mark.parametrize(
    ("dogs", "told"),
    [
        (2, []),
        (1, ["Accuracy is over the images of 2 of 3 classes. The evaluation set has none of 1 of 3 classes, 'dog'."]),
    ],
)
def test_classes_without_an_evaluation_image_are_named_once(tmp_path, caplog, dogs, told):
    for name, count in (("ant", 2), ("bee", 3), ("dog", dogs)):
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.png").write_bytes(encode(np.zeros((4, 4, 3), np.uint8)))
    config = overridden(get_config(), {"dataset.data_dir": str(tmp_path), "batch_size": 1, "init_from": ""}, {})
    task = prepare(config, devices=jax.devices()[:1]).task
    total = EvalMetrics.single_from_model_output(loss=np.ones(2), correct=np.array([True, False]), mask=np.ones(2))
    caplog.clear()
    for _ in range(2):
        assert task.summarize(total) == {"loss": 1, "accuracy": 0.5}
    assert [record.getMessage() for record in caplog.records] == told
    broken = EvalMetrics.single_from_model_output(loss=np.array([1, np.nan]), correct=np.zeros(2), mask=np.ones(2))
    with pytest.raises(UserError, match="Expected finite outputs of the model, got NaN"):
        task.summarize(broken)
