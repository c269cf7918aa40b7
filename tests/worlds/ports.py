"""A port for a program that cannot say which one it took."""

import socket


def free_port() -> int:
    """A port that nobody else is given for a minute.

    A connection that ended here leaves the port in TIME_WAIT: the system hands it to no one, and a
    listener, which reuses addresses, can still take it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), listener.accept()[0]:
            return int(address[1])
