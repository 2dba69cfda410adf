"""``serve``."""

from __future__ import annotations

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options


@click.command("serve")
@click.option("--new-token", is_flag=True, help="Print a new random token, once, and the line with its hash for [[access]].")
@click.option("--allow-plain-http", is_flag=True, help="Listen on a public address without TLS: a proxy in front does the encryption.")
@common_options
@click.pass_obj
def serve_command(invocation: Invocation, new_token: bool, allow_plain_http: bool) -> int:
    """Offer directories to other snapferries as destinations, over HTTP.

    [service], [[store]] and [[access]] of the configuration say what is offered, and to whom. No key of a repository is needed: what is
    stored is encrypted, and stays so.
    """
    if new_token:
        return _new_token(invocation)
    from snapferry.cli.running import run_async
    from snapferry.config.service import load_service_config
    from snapferry.service.running import serve

    def ready(url: str) -> None:
        if invocation.json_lines:
            invocation.emit("serving", {"url": url})
            invocation.flush()
        invocation.say(f"serving at {url}")

    run_async(invocation, serve(load_service_config(invocation.config_path), allow_plain_http=allow_plain_http, ready=ready))
    return 0


def _new_token(invocation: Invocation) -> int:
    from snapferry.service.access import new_token

    token, digest = new_token()
    if invocation.json_lines:
        invocation.emit("token", {"token": token, "token_sha256": digest})
    else:
        invocation.write(token)
        invocation.write(f'token_sha256 = "{digest}"')
        invocation.say("the first line is for who connects, the second for [[access]] here; the token is shown this once")
    return 0
