"""WebSocket frames as clients send them, also those that no decent client sends."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(
    payload: bytes = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = bytes(4),
    says_bytes: int | None = None,
) -> bytes:
    """One frame. `mask`: None for a server's. `says_bytes`: the length that its header says."""
    length = len(payload) if says_bytes is None else says_bytes
    masked = 0 if mask is None else 0x80
    head = bytes((fin << 7 | reserved << 4 | opcode,))
    if length < 126:
        head += bytes((masked | length,))
    elif length < 2**16:
        head += bytes((masked | 126,)) + length.to_bytes(2)
    else:
        head += bytes((masked | 127,)) + length.to_bytes(8)
    if mask is None:
        return head + payload
    if any(mask):
        size = len(payload)
        key = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return head + mask + payload
