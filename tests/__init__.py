"""The tests. Folders mirror the code: the tests of actors/relay/peer.py are in tests/actors/relay.

`worlds/` has what tests play in: a mesh, a peer, live relays, a proxy. `edge/` is a stand-in for AgentCore's edge.
`attackers/` has whatever may hurt honest peers, against the real relay.
"""  # noqa: E501

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The project's folder. (Staged beside an installed wheel, there is no code of ours in it.)"""

IS_CLONE = (ROOT / "relay.py").exists()

RELAY_COMMAND = (sys.executable, *(("relay.py",) if IS_CLONE else ("-m", "agi_diy_relay")))
"""What starts the relay in `ROOT`: `python relay.py` in a clone, else the installed package."""
