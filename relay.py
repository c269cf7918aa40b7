"""The relay as a program, and the application that AgentCore looks for.

    python relay.py --help            every setting; each is also an environment variable
    uvicorn relay:app                 the same application under a server of yours
    agentcore configure --entrypoint relay.py

Importing this file reads no setting and starts nothing: both happen when serving starts.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while the packages are imported

from protocol.about import missing_extra

try:
    from actors.host.app import RelayApp
    from actors.host.logs import configure_logging
    from actors.host.server import CannotListen, bind, serve
    from actors.host.settings import BadSetting, read_settings
except ModuleNotFoundError as error:
    missing = missing_extra(error, "relay", "the relay")
    if __name__ == "__main__":
        sys.exit(str(missing))
    raise missing from None

app = RelayApp()
"""The ASGI application: /ws, /ping, /invocations, and pages for people at / and /browser/."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the relay until SIGTERM or Ctrl-C. Returns the exit code.

    `arguments` are the options, by default those of the command line. 0: ended as asked. 1: it
    cannot listen. 2: a bad setting. One sentence on stderr says what was wrong. A second signal
    ends the process at once: 130 (SIGINT) or 143 (SIGTERM).
    """
    program = _program()
    try:
        settings = read_settings(
            sys.argv[1:] if arguments is None else arguments, os.environ, program
        )
        listeners = bind(settings.hosts, settings.port)
    except BadSetting as error:
        sys.stderr.write(f"{program}: bad setting: {error}\n")
        return 2
    except CannotListen as error:
        sys.stderr.write(f"{program}: cannot listen on {error}\n")
        return 1
    configure_logging(settings.log_level)
    app.settings = settings
    serve(app, settings, listeners)
    return 0


def _program() -> str:
    """The command that was typed, as usage and error lines name it."""
    name = Path(sys.argv[0]).name
    return "agi-diy-relay" if name in ("", "-c", "-m", "__main__.py") else name


if __name__ == "__main__":
    sys.exit(main())
