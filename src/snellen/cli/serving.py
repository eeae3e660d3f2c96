"""serve: models over HTTP."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from snellen.cli.options import INTERRUPTED, Device, console_for


def serve_verb(  # noqa: PLR0913  (each of them is an option)
    models: Annotated[
        tuple[str, ...],
        Parameter(help="Folders that 'snellen train' wrote, or what was exported from them; NAME=PATH names one."),
    ],
    /,
    *,
    host: Annotated[
        str, Parameter(help="Where to listen; whoever is not on this machine needs the token.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None, Parameter(help="What requests must bring. Default: a fresh one, where others reach the host.")
    ] = None,
    insecure: Annotated[bool, Parameter(negative="", help="No token, whoever reaches the host.")] = False,
    max_batch: Annotated[int, Parameter(help="Images that a model answers together.")] = 16,
    max_delay: Annotated[
        float, Parameter(help="Milliseconds that an image waits for others to be answered with.")
    ] = 5.0,
    queue: Annotated[int, Parameter(help="Images of a model that may wait; more are refused with 503.")] = 128,
    per_client: Annotated[
        int, Parameter(help="Requests of one address at once, more are refused with 429; connections: twice as many.")
    ] = 64,
    max_body: Annotated[int, Parameter(help="Megabytes of a request.")] = 32,
    max_pixels: Annotated[int, Parameter(help="Millions of pixels of an image.")] = 50,
    quiet: Annotated[bool, Parameter(negative="", help="No line for each request.")] = False,
    device: Device = "auto",
) -> int:
    """A model over HTTP: a page, JSON, and the Open Inference Protocol. On this machine only, unless told otherwise."""
    from snellen.api.serving import serve
    from snellen.serve.address import Address
    from snellen.serve.limits import Limits

    limits = Limits(
        max_batch=max_batch,
        max_delay=max_delay,
        queue=queue,
        per_client=per_client,
        max_body=max_body * 2**20,
        max_pixels=max_pixels * 10**6,
    )
    address = Address(host=host, port=port, token=token, insecure=insecure)
    try:
        serve(models, address, limits=limits, device=device, log_requests=not quiet, console=console_for(False))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
