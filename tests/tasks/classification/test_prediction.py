import jax
import numpy as np
from PIL import Image

from paca_jax import create_model, preprocess
from paca_jax.tasks.classification.prediction import classify_image
from tests import golden


def test_probabilities_are_those_of_the_evaluation_view():
    model = create_model("pacavit_nano", num_classes=5)
    variables = golden.random_variables(model)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    image = preprocess(picture, model)
    probabilities = classify_image(model, variables, image)
    expected = jax.nn.softmax(model.apply(variables, image[None])[0])
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
