"""Answers uploaded pictures over HTTP: with predictions, and with pages to explore what clusters do.

    paca serve PLACE [--host ADDRESS] [--port N] [--allowed-host NAME]

PLACE is what `paca predict --checkpoint` takes. The page at / has a form for a browser. Programs post the same form, with a
picture in the field `picture`, to /predict; a segmentor answers /mask, and a model with clusters /explore, too. GET /metadata
has the names and the limits. Nothing is stored, and no path or name in a request is used. Only this machine reaches the server
unless --host names another address, such as 0.0.0.0; it asks nobody who they are. The host of a request must be localhost, an
IP address, that of --host or one of --allowed-host. Needs pip install "paca-jax[serve]".
"""

import argparse
from collections.abc import Sequence
from typing import Annotated

from paca_jax.cli.sources import add_reading_options, read_source, run_command
from paca_jax.command_line import Parser
from paca_jax.errors import check_installed, one_line
from paca_jax.fields import Range, check_value
from paca_jax.serve.limits import Limits

Port = Annotated[int, Range(0, 65535)]
_PACKAGES = ("starlette", "python_multipart", "uvicorn")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    run_command(_parser(), _serve, argv)


def _serve(arguments: argparse.Namespace) -> None:
    check_value("port", arguments.port, Port)
    limits = Limits(
        megabytes=arguments.max_megabytes,
        megapixels=arguments.max_megapixels,
        requests=arguments.max_requests,
        seconds=arguments.max_seconds,
        batch_size=arguments.batch_size,
    )
    check_installed("The server", _PACKAGES, "pip install paca-jax[serve]")
    from paca_jax.serve.answering import make_answering
    from paca_jax.serve.application import Application
    from paca_jax.serve.hosts import Hosts
    from paca_jax.serve.server import address, bind, make_server, run

    with bind(arguments.host, arguments.port) as bound:
        hosts = Hosts([arguments.host, *arguments.allowed_host])
        loaded = read_source(arguments.source, arguments)
        loaded.log_departures()
        answering = make_answering(loaded, limits, arguments.effects)
        print(one_line(f"Compiling {answering.name}."), flush=True)
        answering.warm_up()
        bound.listen()
        print(one_line(f"Serving {answering.name} at {address(bound)} until Ctrl-C."), flush=True)
        run(make_server(Application(answering, limits, hosts), limits.seconds), bound)


def _parser() -> Parser:
    usual = Limits()
    parser = Parser("paca serve", __doc__)
    parser.add_argument("source", metavar="PLACE", help="workdir, file of weights or its address, or an official model's name")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="the port; 0 is a free one (default: %(default)s)")
    parser.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a further name by which clients may ask, such as photos.example.org; may be repeated; * is every name",
    )
    for flag, kind, default, text in (
        ("--max-megabytes", float, usual.megabytes, "the size of an uploaded file"),
        ("--max-megapixels", float, usual.megapixels, "the size of a picture"),
        ("--max-requests", int, usual.requests, "the uploads that are read, wait or are computed; more get status 503"),
        ("--max-seconds", float, usual.seconds, "the time of a request; a longer one gets status 504"),
        ("--batch-size", int, usual.batch_size, "the pictures that are computed together"),
    ):
        parser.add_argument(flag, metavar="N", type=kind, default=default, help=f"{text} (default: {default:g})")
    parser.add_argument(
        "--effects", action="store_true", help="explore the answers without each cluster, too, which takes long"
    )
    add_reading_options(parser)
    return parser
