"""Builds datasets/photographs, the backgrounds of the data set `scenes`, from two wheels and a package of Debian.

    pip download --no-deps --only-binary=:all: --python-version=3.11 --dest=PACKAGES scikit-image==0.26.0 scipy==1.9.3
    cd PACKAGES && apt-get download lomiri-wallpapers-16.04
    python -m scripts.build_photographs PACKAGES OUTPUT_FOLDER

Nothing is installed: only SciPy versions that do not work with today's NumPy contain the picture. OUTPUT_FOLDER (the
repository's own is `datasets/photographs`) receives `train/NAME.jpg` and `test/NAME.jpg`.
"""

import bz2
import io
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError

LONG_SIDE, QUALITY = 512, 80
RACCOON_SIZE = (1024, 768)  # SciPy stores bare pixels
AR_MAGIC, AR_HEADER = b"!<arch>\n", 60


class Photograph(NamedTuple):
    """The source of a photograph.

    Attributes:
        split: "train" or "test": the scenes that have it as background.
        name: the name of its file here, without the suffix.
        package: the start of the file name of its wheel or Debian package.
        path: the file inside the package.
    """

    split: str
    name: str
    package: str
    path: str


_LOMIRI = ("lomiri-wallpapers-16.04_20.04.0", "./usr/share/backgrounds/")


PHOTOGRAPHS = (
    Photograph("train", "brick", "scikit_image-0.26.0", "skimage/data/brick.png"),
    Photograph("train", "cat", "scikit_image-0.26.0", "skimage/data/chelsea.png"),
    Photograph("train", "clock", "scikit_image-0.26.0", "skimage/data/clock_motion.png"),
    Photograph("train", "coffee", "scikit_image-0.26.0", "skimage/data/coffee.png"),
    Photograph("train", "galaxies", "scikit_image-0.26.0", "skimage/data/hubble_deep_field.jpg"),
    Photograph("train", "grass", "scikit_image-0.26.0", "skimage/data/grass.png"),
    Photograph("train", "bowl", _LOMIRI[0], _LOMIRI[1] + "Picture_0B_by_freespace.jpg"),
    Photograph("train", "brushes", _LOMIRI[0], _LOMIRI[1] + "Picture_1A_by_freespace.jpg"),
    Photograph("train", "dandelions", _LOMIRI[0], _LOMIRI[1] + "seeding_by_Clements_Engelhardt.jpg"),
    Photograph("train", "dogs", _LOMIRI[0], _LOMIRI[1] + "friends_by_Aitzol_Berasategi.jpg"),
    Photograph("train", "meadow", _LOMIRI[0], _LOMIRI[1] + "aitzgorri_by_Aitzol_Berasategi.jpg"),
    Photograph("train", "room", _LOMIRI[0], _LOMIRI[1] + "Wine_by_Jakkub_Mede.jpg"),
    Photograph("train", "stream", _LOMIRI[0], _LOMIRI[1] + "life_by_Aitzol_Berasategi.jpg"),
    Photograph("test", "mountains", _LOMIRI[0], _LOMIRI[1] + "picosdeeuropa_by_Aitzol_Berasategi.jpg"),
    Photograph("test", "sunset", _LOMIRI[0], _LOMIRI[1] + "sunset_by_Aitzol_Berasategi.jpg"),
    Photograph("test", "gravel", "scikit_image-0.26.0", "skimage/data/gravel.png"),
    Photograph("test", "raccoon", "scipy-1.9.3", "scipy/misc/face.dat"),
    Photograph("test", "rocket", "scikit_image-0.26.0", "skimage/data/rocket.jpg"),
)


def read(packages: Path, photograph: Photograph) -> Image.Image:
    """Returns a photograph as in its package.

    Args:
        packages: the folder of packages.
        photograph: the photograph to read.

    Raises:
        UserError: the package is missing.
    """
    found = sorted(path for kind in ("whl", "deb") for path in packages.glob(f"{photograph.package}-*.{kind}"))
    if not found:
        raise UserError(
            f"Expected the package {photograph.package} in {packages}, found none. Download it as this script's help says."
        )
    data = (read_debian if found[0].suffix == ".deb" else read_wheel)(found[0], photograph.path)
    if photograph.path.endswith(".dat"):
        return Image.frombytes("RGB", RACCOON_SIZE, bz2.decompress(data))
    return Image.open(io.BytesIO(data))


def read_wheel(package: Path, path: str) -> bytes:
    """Returns a file of a wheel, which is a zip file."""
    with zipfile.ZipFile(package) as wheel:
        return wheel.read(path)


def read_debian(package: Path, path: str) -> bytes:
    """Returns a file of a Debian package: of the member data.tar.xz of an ar archive."""
    with package.open("rb") as archive:
        archive.seek(len(AR_MAGIC))
        while header := archive.read(AR_HEADER):
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                with tarfile.open(fileobj=io.BytesIO(archive.read(size))) as files:
                    return files.extractfile(path).read()
            archive.seek(size + size % 2, io.SEEK_CUR)
    raise UserError(f"Expected a Debian package with data, got {package}. Download it again.")


def build(packages: Path, output: Path) -> list[Path]:
    """Writes every photograph as a JPEG of at most `LONG_SIDE` pixels in width and height; gray ones stay gray.

    Args:
        packages: the folder of packages.
        output: the folder to write into.

    Returns:
        The files.

    Raises:
        UserError: a package is missing.
    """
    files = []
    for photograph in PHOTOGRAPHS:
        picture = read(packages, photograph)
        picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        file = output / photograph.split / f"{photograph.name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=QUALITY, optimize=True)
        files.append(file)
    return files


def main() -> None:
    """Runs the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with command_line():
        print(*build(arguments.packages, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
