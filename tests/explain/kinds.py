"""Small models of every kind with random variables."""

import functools

import paca_jax
from paca_jax.models import TeacherConfig
from tests import golden

NAMES = ["ant", "bee", "cat"]
WIDTHS = {"embed_dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "num_classes": len(NAMES)}
SIDES = {"short_side": 32, "long_side": 64, "head_channels": 8}
FEW = {"box_channels": 8, "candidates": 20, "proposals": 12, "detections": 9, "score_threshold": 0.0}
TEACHER = TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)
MODELS = {
    "classifier": ("pacavit_nano", {"clusters": (6, 4, 0, 3)}),
    "teacher": ("pacavit_nano", {"clusters": (6, 4, 5, 3), "teacher": TEACHER}),
    "pacahead": ("pacahead_nano", {"clusters": (6, 4, 0, 0), **SIDES}),
    "upernet": ("upernet_nano", {"clusters": (6, 0, 4, 0), **SIDES}),
    "detector": ("mask_rcnn_nano", {"clusters": (6, 4, 0, 0), **SIDES, **FEW}),
}


@functools.cache
def made(kind):
    name, options = MODELS[kind]
    model = paca_jax.create_model(name, **WIDTHS, **options)
    return model, golden.random_variables(model)
