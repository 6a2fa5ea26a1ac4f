"""By which hosts the server answers: a site can make its name point to any server that a browser reaches (DNS rebinding)."""

import ipaddress
import re
from collections.abc import Sequence

from paca_jax.errors import check, shorten
from paca_jax.serve.limits import RefusedError

_ANY = "*"
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_HEADER = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]*)?")


class Hosts:
    """The hosts by which a server answers: localhost, every IP address, and some names.

    An IP address is safe: the page of a site that has made its name point to the server asks by that name. So health checks,
    which ask by the address of a container, need no name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Takes the names, in which case and a dot at the end do not matter.

        Args:
            names: names or IP addresses; "*" stands for every name.

        Raises:
            UserError: if one is neither.
        """
        for name in names:
            check(
                name == _ANY or _is_address(name) or _NAME.fullmatch(name.removesuffix(".")) is not None,
                f"Expected a host such as photos.example.org, without scheme and port, got {shorten(name, 100)!r}. Correct it.",
            )
        self._names = {"localhost", *map(_normal, names)}

    def check(self, header: str | None) -> None:
        """Checks the host that a request names.

        Args:
            header: the value of its header Host, whose port does not matter; None without one.

        Raises:
            RefusedError: if the server does not answer by it.
        """
        parts = None if header is None else _HEADER.fullmatch(header)
        if parts is None:
            got = "none" if header is None else repr(shorten(header, 100))
            raise RefusedError(400, f"Expected a host such as localhost:8000 in the header Host, got {got}. Send one.")
        name = parts["address"] or parts["name"]
        if not (_is_address(name) or _normal(name) in self._names or _ANY in self._names):
            raise RefusedError(
                421,
                f"Expected localhost, an IP address or a name of --allowed-host as the host, got {shorten(name, 100)!r}. "
                "Ask by one of these, or start the server with that name as --allowed-host.",
            )


def _normal(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
