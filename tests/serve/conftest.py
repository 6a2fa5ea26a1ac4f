"""Servers of a classifier, a segmentor and a detector, which the tests of this folder share."""

import contextlib

import pytest

from paca_jax import create_model
from paca_jax.checkpoints import write_state_dict
from paca_jax.checkpoints.loading import read_model
from paca_jax.convert import to_torch
from paca_jax.serve.answering import make_answering
from paca_jax.serve.limits import Limits
from tests import golden
from tests.cli.test_predict import CLASSIFIER, DETECTOR, SEGMENTOR
from tests.serve.running import running

# Random weights of UPerNet, unlike those of a PaCa head, give pixels of one picture different classes.
RECIPES = {"classifier": CLASSIFIER, "segmentor": SEGMENTOR | {"name": "upernet_nano"}, "detector": DETECTOR}
LIMITS = Limits(batch_size=4, seconds=600.0)


@pytest.fixture(scope="package")
def places(tmp_path_factory):
    """The files of the models, by their kinds."""
    root, found = tmp_path_factory.mktemp("served"), {}
    for kind, recipe in RECIPES.items():
        model = create_model(**recipe)
        found[kind] = root / f"{kind}.safetensors"
        write_state_dict(found[kind], to_torch(golden.random_variables(model), model), recipe)
    return found


@pytest.fixture(scope="package")
def servers(places):
    """The servers, by the kinds of their models."""
    with contextlib.ExitStack() as stack:
        found = {}
        for kind, place in places.items():
            answering = make_answering(read_model(place, None), LIMITS, effects=False)
            found[kind] = stack.enter_context(running(answering, LIMITS))
        yield found


@pytest.fixture(scope="package")
def server(servers):
    """The server of the classifier."""
    return servers["classifier"]
