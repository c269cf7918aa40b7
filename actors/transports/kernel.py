"""What the kernel may hold for one connection: little, because what waits there is not counted."""

import asyncio
import socket
from typing import Final

LITTLE_BYTES: Final = 32 * 1024
"""The send buffer that we ask the kernel for, for a connection that is to hold little. (Linux
doubles the figure and counts its own records in.)"""
SEND_BUFFER_BYTES: Final = 256 * 1024
"""The send buffer that we ask the kernel for. What a peer does not read waits with us, counted."""


def bound_send_buffer(transport: asyncio.Transport, bytes: int) -> None:
    """Ask the kernel for a send buffer of this size, if there is a socket."""
    holder = transport.get_extra_info("socket")
    if holder is not None:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, bytes)
