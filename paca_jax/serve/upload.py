"""From a request to a picture: an upload is read into memory, never into a file, and no name in it is used."""

from PIL import Image, ImageFile
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from paca_jax.data.codecs.images import ImageError, ImageKindError, convert_image, load_image
from paca_jax.serve.limits import Limits, RefusedError

FIELD = "picture"
FORMATS = ("JPEG", "MPO", "PNG", "WEBP")  # MPO: a JPEG file with further pictures, as some cameras write it
_FRAMING = 8192  # bytes of a form around its file


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # from where on an upload would go to a temporary file


async def read_upload(request: Request, limits: Limits) -> bytes:
    """Returns the file in the only field of a form.

    Raises:
        RefusedError: if the request is of another kind, does not say its length, or is too long.
        starlette.requests.ClientDisconnect: if the client leaves before its end.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" or request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(415, "Expected a form of type multipart/form-data, not compressed, got another body. Post a form.")
    length = request.headers.get("content-length")
    if length is None or "transfer-encoding" in request.headers:  # beside which the length would not count
        raise RefusedError(411, "Expected a request that says its length, got none. Add Content-Length.")
    if int(length) > 1e6 * limits.megabytes + _FRAMING:
        raise _too_long(limits)
    try:
        form = await _InMemory(request.headers, request.stream(), max_files=1, max_fields=0).parse()
    except MultiPartException as error:
        raise _no_picture(error.message) from error
    except (FormParserError, UnicodeError) as error:  # of older versions of Starlette, and of a charset that decodes nothing
        raise _no_picture("a malformed one.") from error
    file = form.get(FIELD)
    if not isinstance(file, UploadFile):
        raise _no_picture("a form without that field.")
    content = await file.read()
    if len(content) > 1e6 * limits.megabytes:
        raise _too_long(limits)
    return content


def decode_upload(content: bytes, channels: int, limits: Limits) -> Image.Image:
    """Returns an uploaded picture upright, in mode "RGB" or, for one channel, "L".

    Raises:
        RefusedError: if the bytes are no picture of `FORMATS`, or a damaged or too large one.
    """
    if not (content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (content[:4], content[8:12]) == (b"RIFF", b"WEBP")):
        raise RefusedError(415, "Expected a picture in JPEG, PNG or WebP, got a file of another kind. Convert it.")

    def check(image: ImageFile.ImageFile) -> None:
        if image.width * image.height > 1e6 * limits.megapixels:
            raise _too_large(limits)
        if image.format not in FORMATS:
            raise RefusedError(415, "Expected a picture in JPEG, PNG or WebP, got a file of another kind. Convert it.")

    try:
        return convert_image(load_image(content, check), channels)
    except ImageError as error:
        raise RefusedError(400, str(error)) from error
    except ImageKindError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise _too_large(limits) from error
        raise RefusedError(415, str(error)) from error


def _no_picture(found: str) -> RefusedError:
    return RefusedError(400, f"Expected a form with one picture as a file in the field {FIELD!r}, got: {found} Send one.")


def _too_long(limits: Limits) -> RefusedError:
    return RefusedError(413, f"Expected a file of at most {limits.megabytes:g} MB, got a longer one. Send a smaller one.")


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"Expected a picture of at most {limits.megapixels:g} megapixels, got a larger one. Shrink it.")
