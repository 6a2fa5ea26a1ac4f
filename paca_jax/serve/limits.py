"""What a request may take, and how one that takes more, or is no picture, is refused."""

import dataclasses
from typing import Annotated

from paca_jax.errors import UserError
from paca_jax.fields import Range, check_types


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        megabytes: of an uploaded file, in 10^6 bytes.
        megapixels: of a picture, in 10^6 pixels.
        requests: the number of uploads that are read, wait or are computed at a time.
        seconds: from the head of a request to its answer.
        batch_size: the number of pictures that are computed together.

    Raises:
        UserError: if a value is out of range.
    """

    megabytes: Annotated[float, Range(0, 1000, "(]")] = 16.0
    megapixels: Annotated[float, Range(0, 1000, "(]")] = 64.0
    requests: Annotated[int, Range(1, 1000)] = 32
    seconds: Annotated[float, Range(0, 3600, "(]")] = 60.0
    batch_size: Annotated[int, Range(1, 256)] = 8

    def __post_init__(self) -> None:
        check_types(self)


class RefusedError(UserError):
    """A request that is refused.

    Attributes:
        status: the status of the response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
