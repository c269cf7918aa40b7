"""A stand-in for the edge of Amazon Bedrock AgentCore, for tests and for trying things out.

    python -m tests.edge --help
    async with Edge(runtimes=..., credentials=..., limits=..., clock=...) as edge: ...

In front of relay processes that it starts, one per session, it does what the service's data plane
does: it checks signatures and tokens, routes by session id, passes only some headers, and ends
what exceeds a limit. It is neither installed nor deployed.

What is documented by AWS (developer guide, "Get started with bidirectional streaming using
WebSocket", "Quotas", "Pass custom headers"): the URL, the ways to sign, the session id in query or
header and its length, statuses and `x-amzn-ErrorType` of refusals, 409 for a session that starts
or ends, which headers pass, the limits and that 1008 and 1009 tell of them, that pings count as
activity.

What is assumed, because nothing says it:
- the container gets the session id in its header, also where the client gave it in the query (the
  relay knows by this, or by another header of AgentCore's, that frames are limited);
- custom headers reach the container only if they are in the runtime's allowlist (AWS's pages differ
  about that), then also from the query;
- how the frame rate is measured (see `EdgeLimits`): each direction by itself, not both together,
  when a frame is passed on; and that both ends get the close code;
- the size is that of a frame; continuation frames pass as they are, however long the message;
- what a client does not read waits in bounded buffers here, then the relay cannot write;
- 1001 at the end of a connection's or session's life, 1011 if the relay vanishes without one;
- pings and pongs are passed on (`answers_pings` is the other possibility), close codes too;
- no compression is agreed on; the subprotocol with the token is not shown to the relay;
- a session that does not become healthy is 424, as a refusal by the container is;
- a query and a header that name different sessions are refused, as is a date 5 minutes ahead;
- IAM policies are not looked at: whoever has keys may open any session of any runtime here.
"""

from tests.edge.admission import SESSION_HEADER as SESSION_HEADER
from tests.edge.frames import Gauge as Gauge
from tests.edge.frames import Traffic as Traffic
from tests.edge.limits import EdgeLimits as EdgeLimits
from tests.edge.server import Edge as Edge
from tests.edge.server import EdgeThread as EdgeThread
from tests.edge.sessions import HostedRuntime as HostedRuntime
from tests.edge.sessions import Session as Session
from tests.edge.sessions import SessionState as SessionState
from tests.edge.signing import Credentials as Credentials
from tests.edge.signing import Issuer as Issuer
