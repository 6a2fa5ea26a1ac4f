import pytest
from etils import epath
from PIL import Image

from paca_jax.tasks.base import Task


class Drawing(Task):
    """A task without data or a model, whose reports are of the given colors in turn."""

    augment = loss = evaluate = None
    _report_file = "report.png"

    def __init__(self, *colors):
        self.colors = iter(colors)

    def _draw_report(self, variables):
        return Image.new("RGB", (4, 4), next(self.colors))


@pytest.mark.parametrize(("remake", "color"), [(False, (255, 0, 0)), (True, (0, 0, 255))])
def test_a_report_is_only_remade_if_asked_for(tmp_path, remake, color):
    task, workdir = Drawing("red", "blue"), epath.Path(tmp_path)
    (path,) = task.report({}, workdir, remake=False)
    assert task.report({}, workdir, remake) == [path]
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == color
