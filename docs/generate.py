"""Writes the generated parts of the documents: `python docs/generate.py`.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test calls `stale()` and
fails if any part is not what the code says.
"""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import attrs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from actors.host.metrics import HISTOGRAMS, INSTRUMENTS, NAME, prometheus_name  # noqa: E402
from protocol.about import __version__  # noqa: E402
from protocol.envelope import ErrorCode  # noqa: E402
from protocol.limits import Limits, MembershipLimits  # noqa: E402
from protocol.member import lifecycle as membership  # noqa: E402
from protocol.mesh import lifecycle  # noqa: E402
from protocol.mesh.effects import CLOSE_CODES  # noqa: E402
from protocol.mesh.federation import standing  # noqa: E402
from protocol.mesh.routing import ANY_OTHER_TYPE, ROUTES, WITHHELD, Route  # noqa: E402

_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?( *<!-- end -->)", re.DOTALL)
_NPM_VERSION = re.compile(r'(?m)^(  "version": ")[^"]+(",)$')


def routes() -> str:
    """Which type of message goes to whom."""
    rows = ["| type | audience |", "|---|---|"]
    order = (Route.EVERYONE, Route.RELAY, Route.TARGET, Route.OTHERS, Route.NOBODY, Route.REFUSED)
    for route in order:
        listed = [type for type, where in ROUTES.items() if where is route]
        types = WITHHELD if route is Route.NOBODY else listed
        rows.append(f"| {', '.join(f'`{type}`' for type in types)} | {route.value} |")
        if route is ANY_OTHER_TYPE:
            rows.append(f"| any other type | {route.value} |")
    return "\n".join(rows) + "\n"


def withheld() -> str:
    """Which types go to nobody, and why; inside a numbered rule."""
    rows = ["| type | nobody gets it, because it holds |", "|---|---|"]
    rows += [f"| `{type}` | {why} |" for type, why in WITHHELD.items()]
    return "".join(f"    {row}\n" for row in rows)


def with_unit(name: str, default: float) -> str:
    """A default as people read it: rates and times by the end of their field's name.

    >>> with_unit("messages_per_s", 1000.0), with_unit("drain_s", 5.0), with_unit("agents_max", 256)
    ('1000/s', '5 s', '256')
    """
    unit = "/s" if name.endswith("_per_s") else " s" if name.endswith("_s") else ""
    return f"{default:.10g}{unit}"


def bounds() -> str:
    """Every bound of the relay, with its option."""
    rows = ["| bound | default | option | environment | beyond it |", "|---|---|---|---|---|"]
    for field in attrs.fields(Limits):
        option = "--" + field.name.replace("_", "-")
        variable = f"RELAY_{field.name.upper()}"
        what, beyond = field.metadata["what"], field.metadata["beyond"]
        default = with_unit(field.name, cast(float, field.default))
        rows.append(f"| {what} | {default} | `{option}` | `{variable}` | {beyond} |")
    return "\n".join(rows) + "\n"


def costs() -> str:
    """What one connection may cost, and what all of them may."""
    limits = Limits()

    def rate(per_s: float, burst: float, of: str) -> str:
        return f"{per_s:,.10g} {of} a second, {burst:,.10g} at once"

    def size(bytes: int) -> str:
        for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
            if bytes % unit == 0:
                return f"{bytes // unit} {name}"
        return f"{bytes:,} bytes"

    request = (
        f"a head of {size(limits.head_bytes_max)}, a body of {size(limits.body_bytes_max)} "
        f"(for `/send` {size(limits.message_bytes_max)})"
    )
    unsent = f"{size(limits.mailbox_bytes_max)} or {limits.mailbox_messages_max:,} messages"
    quantum = f"{limits.quantum_messages} messages or {size(limits.quantum_bytes)}"
    whole = f"{limits.round_messages_max:,} messages or {size(limits.round_bytes_max)}"
    here = f"{limits.peer_connections_max} of one peer, {limits.connections_max:,} in a mesh"
    rows = (
        ("frames in", "", rate(limits.frames_in_per_s, limits.frames_in_burst, "frames")),
        ("bytes in", request, rate(limits.bytes_in_per_s, limits.bytes_in_burst, "bytes")),
        (
            "beyond that, all such connections together",
            "",
            f"{limits.crowd_bytes_per_s:,.10g} bytes a second",
        ),
        ("messages", "", rate(limits.messages_per_s, limits.messages_burst, "messages")),
        (
            "announcements",
            "",
            f"{limits.announcements_per_s:g} a second, {limits.announcements_burst} at once",
        ),
        (
            "bytes held, in",
            "the same",
            f"{size(limits.inbox_bytes_max)}, and a message of {size(limits.message_bytes_max)}",
        ),
        ("bytes held, out", "64 KiB", f"{unsent}; a batch of any size if nothing waits"),
        ("held always", "16 KiB", f"the same, and a presence of {size(limits.presence_bytes_max)}"),
        ("work in a round", "", f"{quantum}, at least one message; all together {whole}"),
        (
            "time",
            f"{limits.opening_within_s:g} s for each step",
            f"{limits.announce_within_s:g} s to its presence, {limits.reap_after_s:g} s of silence",
        ),
        ("how many", "", f"{limits.unannounced_max:,} without a presence; {here}"),
    )
    table = ["| | while it speaks HTTP | as a WebSocket |", "|---|---|---|"]
    table += [f"| {what} | {before} | {then} |" for what, before, then in rows]
    return "\n".join(table) + "\n"


def metrics() -> str:
    """Every metric, by its names in Prometheus and in OpenTelemetry."""
    rows = ["| at `/metrics` | in OpenTelemetry | what it is |", "|---|---|---|"]
    for its in INSTRUMENTS:
        name = prometheus_name(its.name, its.unit) + ("_total" if its.is_counter else "")
        label = f"{{{its.label}}}" if its.label else ""
        rows.append(f"| `{name}{label}` | `{NAME}.{its.name}` | {its.what} |")
    for name, (what, _) in HISTOGRAMS.items():
        rows.append(
            f"| `{prometheus_name(name, 's')}` | `{NAME}.{name}.bucket{{le}}`, `.sum` | "
            f"a histogram: {what} |"
        )
    return "\n".join(rows) + "\n"


def membership_bounds() -> str:
    """Every bound of a peer."""
    rows = ["| bound | field | default | beyond it |", "|---|---|---|---|"]
    for field in attrs.fields(MembershipLimits):
        what, beyond = field.metadata["what"], field.metadata["beyond"]
        default = with_unit(field.name, cast(float, field.default))
        rows.append(f"| {what} | `{field.name}` | {default} | {beyond} |")
    return "\n".join(rows) + "\n"


def errors() -> str:
    """The codes of errors."""
    rows = ["| code | meaning |", "|---|---|"]
    rows += [f"| `{code.code}` | {code.meaning} |" for code in ErrorCode]
    return "\n".join(rows) + "\n"


def closes() -> str:
    """The close code for each cause."""
    rows = ["| cause | close code |", "|---|---|"]
    rows += [f"| {cause.value} | {code} |" for cause, code in CLOSE_CODES.items()]
    return "\n".join(rows) + "\n"


def claims() -> str:
    """The claims of the conformance kit."""
    from protocol.verification.conformance import (  # noqa: PLC0415 (needs the test dependencies)
        all_claims,
        listing,
    )

    return listing(all_claims())


def claim_counts() -> str:
    """How many claims the conformance kit has at each level."""
    from protocol.verification.conformance import (  # noqa: PLC0415 (needs the test dependencies)
        all_claims,
        counted,
    )

    return counted(all_claims())


def report(of: str) -> str:
    """What the conformance kit says of another server, whole."""
    return shown(f"docs/reports/{of}.txt", "text")


def verdict(of: str) -> str:
    """The end of such a report: what comes behind the single claims."""
    text = (ROOT / f"docs/reports/{of}.txt").read_text(encoding="utf-8")
    return f"```text\n{text[text.index('level ') :]}```\n"


def files() -> str:
    """Every module, with the first line of its docstring; of the verification only the rooms."""
    rows = ["| file | its one job |", "|---|---|"]
    tops = ("relay.py", "actors", "protocol", "agi_diy_relay", "distribution")
    for top in tops:
        path = ROOT / top
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT)
            is_room = file.name == "__init__.py"
            words = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
            deep = "verification" in name.parts and len(name.parts) - is_room > 3
            if words is None or deep:
                continue
            shown = f"{name.parent}/" if is_room else str(name)
            first = words.splitlines()[0].replace("|", "\\|")
            rows.append(f"| {shown} | {first} |")
    return "\n".join(rows) + "\n"


def shown(file: str, language: str) -> str:
    """A file that readers copy, as the tests run it."""
    return f"```{language}\n{(ROOT / file).read_text(encoding='utf-8')}```\n"


PARTS: dict[str, Callable[[], str]] = {
    "routes": routes,
    "withheld": withheld,
    "costs": costs,
    "bounds": bounds,
    "metrics": metrics,
    "errors": errors,
    "closes": closes,
    "claims": claims,
    "claim-counts": claim_counts,
    "report-node-ws": lambda: report("node-ws"),
    "verdict-bun": lambda: verdict("bun"),
    "verdict-websockets": lambda: verdict("websockets"),
    "files": files,
    "lifecycle-diagram": lambda: f"```mermaid\n{lifecycle.diagram()}```\n",
    "lifecycle-table": lifecycle.table_rows,
    "membership-diagram": lambda: f"```mermaid\n{membership.diagram()}```\n",
    "membership-table": membership.table_rows,
    "membership-bounds": membership_bounds,
    "nginx": lambda: shown("docs/proxies/nginx.conf", "nginx"),
    "haproxy": lambda: shown("docs/proxies/haproxy.cfg", "text"),
    "nginx-several": lambda: shown("docs/proxies/nginx-several.conf", "nginx"),
    "haproxy-several": lambda: shown("docs/proxies/haproxy-several.cfg", "text"),
    "nginx-federation": lambda: shown("docs/proxies/nginx-federation.conf", "nginx"),
    "haproxy-federation": lambda: shown("docs/proxies/haproxy-federation.cfg", "text"),
    "standing": standing.table_rows,
    "service": lambda: shown("docs/systemd/agi-diy-relay.service", "ini"),
    "service-settings": lambda: shown("docs/systemd/relay.env", "ini"),
    "strands": lambda: shown("examples/strands_agent.py", "python"),
    "small-machine": lambda: shown("docs/systemd/small.env", "ini"),
}


def current(text: str) -> str:
    """The document with every generated part, and npm's version, as the code has it now."""
    text = _NPM_VERSION.sub(rf"\g<1>{__version__}\g<2>", text)
    return _PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[3], text)


def documents() -> list[Path]:
    """The files that may have generated parts."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "browser" / "package.json", *pages]


def stale() -> list[str]:
    """The names of the documents that are not current."""
    return [p.name for p in documents() if current(p.read_text()) != p.read_text()]


if __name__ == "__main__":
    for path in documents():
        path.write_text(current(path.read_text()))
