"""The tests. Folders mirror the code: the tests of actors/relay/peer.py are in tests/actors/relay.

`worlds/` has what tests play in: a mesh, a peer, live relays, a proxy. `edge/` is a stand-in for AgentCore's edge.
"""  # noqa: E501

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The project's folder."""
