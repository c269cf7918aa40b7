"""`agi-mesh who`: the peers of a mesh, and their agents."""

from functools import partial

import click

from actors.cli import shown
from actors.cli.place import Place, options
from actors.cli.running import run
from protocol.member.messages import RemotePeer


@click.command()
@options
@click.argument("agent", required=False)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each peer.")
def who(*, place: Place, agent: str | None, as_json: bool) -> int:
    """Who is there: the peers and their agents.

    With AGENT only the peers that have it, or are called so. If there is none, the exit code is 1,
    so a script can ask: agi-mesh who coder && agi-mesh ask coder "..."
    """
    return run(partial(_show, place, agent, as_json=as_json))


async def _show(place: Place, agent: str | None, *, as_json: bool) -> int:
    async with place.join(subscribe=False, program="agi-mesh who") as peer:
        peers = sorted(peer.roster.values(), key=lambda one: one.id)
    if agent is not None:
        peers = [one for one in peers if agent in (one.id, *one.agents)]
    if as_json:
        for one in peers:
            shown.say_json({"peer": one.id, "agents": one.agents, "data": one.data})
    elif peers:
        rows = [(one.id, ", ".join(one.agents), _host(one)) for one in peers]
        shown.say(shown.table(("PEER", "AGENTS", "HOST"), rows))
    else:
        shown.note(f"nobody{'' if agent is None else f' who is {agent}'} is at {place.shown}")
    return 1 if agent is not None and not peers else 0


def _host(peer: RemotePeer) -> str:
    host = peer.data.get("hostname")
    return host if isinstance(host, str) else ""
