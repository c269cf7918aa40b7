"""`POST /send`: says something in a mesh for a program that holds no socket.

The body is one message, or an array of messages. It is read part by part and counts at once in what
the process holds; nothing of it is read before its sender has shown a good token.

Browsers let any page send such a request blindly, but not with the Content-Type of JSON. So that is
asked for, and pages of other origins are refused besides.
"""

from collections.abc import Sequence
from typing import Final

import anyio
import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.host.openings import DEFAULT_MESH, Openings, Refusal, refused
from actors.relay.runtime import Full, Runtime
from actors.relay.visits import VisitActor
from protocol import envelope
from protocol.envelope import ErrorCode
from protocol.mesh.visiting import Receipt

STATUS: Final = {
    ErrorCode.MALFORMED: 400,
    ErrorCode.NOT_AN_OBJECT: 400,
    ErrorCode.BAD_FIELD: 400,
    ErrorCode.TOO_LONG: 400,
    ErrorCode.UNKNOWN_TYPE: 400,
    ErrorCode.EXPIRED: 401,
    ErrorCode.NOT_GRANTED: 403,
    ErrorCode.SPOOFED: 403,
    ErrorCode.UNKNOWN_TARGET: 404,
    ErrorCode.AMBIGUOUS_TARGET: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.NO_ROOM: 503,
    ErrorCode.UNDECIDED: 503,
}
"""The HTTP status of a single message that was refused, for all codes that a visit may get."""

_STATUS: Final = {code.code: status for code, status in STATUS.items()}
_AGAIN: Final = (429, 503)
"""Who gets one of these may try again after a second."""


@attrs.frozen
class Sending:
    """Answers requests to `/send`."""

    runtime: Runtime
    openings: Openings

    async def answer(self, request: Request) -> Response:
        """Have what stands in the body decided, and say what came of it."""
        openings = self.openings
        try:
            server = request.scope.get("server")
            grant = await openings.check_sender(request.headers, server[0] if server else None)
            mesh = request.query_params.get("mesh") or DEFAULT_MESH
            openings.check_mesh(mesh, grant)
            self._check_body(request)
            with self.runtime.visit(mesh, grant) as visit:
                await self._read(request, visit)
                receipts = await self.runtime.say(visit)
                return self._answer(receipts, is_list=visit.is_list)
        except Refusal as refusal:
            return refused(refusal)
        except Full as full:
            return refused(openings.refusal("full", str(full), 503))
        except envelope.Refusal as refusal:
            return self._answer([Receipt.of(refusal)], is_list=False)

    def _check_body(self, request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            reason = "the Content-Type must be application/json (curl: --json)"
            raise self.openings.refusal("request refused", reason, 415)

    async def _read(self, request: Request, visit: VisitActor) -> None:
        """Read the body, as far as it may be sent."""
        limits, size = self.runtime.limits, 0
        with anyio.move_on_after(limits.opening_within_s) as time:
            async for part in request.stream():
                size += len(part)
                if size > limits.message_bytes_max or visit.is_stopped:
                    break
                visit.take(part)
        if time.cancelled_caught:
            reason = f"the request was not complete within {limits.opening_within_s:g} s"
            raise self.openings.refusal("request refused", reason, 408)
        if size > limits.message_bytes_max:
            reason = f"the body has more than {limits.message_bytes_max} bytes"
            raise self.openings.refusal("request refused", reason, 413)

    def _answer(self, receipts: Sequence[Receipt], *, is_list: bool) -> Response:
        bad = next((receipt for receipt in receipts if receipt.code is not None), None)
        if bad is not None:
            self.openings.refusals.tell("message refused", bad.code or "")
        if is_list:
            return JSONResponse([receipt.as_data for receipt in receipts])
        [receipt] = receipts
        status = 200 if receipt.code is None else _STATUS[receipt.code]
        headers = {"retry-after": "1"} if status in _AGAIN else None
        return JSONResponse(receipt.as_data, status, headers)
