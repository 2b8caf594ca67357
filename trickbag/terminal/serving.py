"""The command that puts trained runs behind an address."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trickbag.ground import glance
from trickbag.terminal.options import option, screen_of

_option = partial(option, verb="serve")


def serve(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help=glance.parameters("api.py", "serve")["runs"])],
    host: Annotated[str, _option("host", "ADDRESS")] = "127.0.0.1",
    port: Annotated[int, _option("port", min=0, max=65535)] = 8000,
    token: Annotated[str, _option("token", "TOKEN", envvar="TRICKBAG_TOKEN")] = "",
    threshold: Annotated[float | None, _option("threshold", "P", min=0, max=1)] = None,
    images: Annotated[int, _option("images", "N", min=1)] = 64,
    megabytes: Annotated[float, _option("megabytes", "N")] = 64,
    megapixels: Annotated[float, _option("megapixels", "N")] = 50,
    seconds: Annotated[float, _option("seconds", "N")] = 10,
    queue: Annotated[int, _option("queue", "N", min=1)] = 16,
) -> None:
    """Open a page to drop photos on, and answer programs at the same address, until Ctrl-C."""
    import trickbag as tb

    with screen_of() as screen:
        tb.serve(
            *runs,
            host=host,
            port=port,
            token=token,
            threshold=threshold,
            images=images,
            megabytes=megabytes,
            megapixels=megapixels,
            seconds=seconds,
            queue=queue,
            progress=screen.tell,
        )
