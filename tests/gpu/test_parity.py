"""The official code's recorded outputs, gradients and training steps, on a GPU."""

import pytest

from tests.models.test_detectors import (  # noqa: F401  collected here, to run on a GPU
    networks,
    official,
    reference,
    test_detections_match_the_recorded_ones,
    test_proposals_match_the_recorded_ones,
    test_region_features_and_heads,
    test_the_pyramid_and_the_region_scores,
)
from tests.models.test_reference import test_outputs_and_gradients_of_the_official_code  # noqa: F401
from tests.models.test_segmentors import test_outputs_losses_and_gradients_of_the_official_code  # noqa: F401
from tests.train.test_reference import test_twelve_steps  # noqa: F401

pytestmark = pytest.mark.gpu
