"""Compare the relay with other servers under the same load, and print Markdown tables.

    python benchmarks/run.py                                everything, more than half an hour
    python benchmarks/run.py --servers relay,bun --scenarios fan-10x100,pingpong-50
    python benchmarks/run.py --selftest                     does loadgen notice faults?

Every run starts its server anew, pinned to one core, and drives it with loadgen from another core.
The runs are interleaved: each round does every scenario with every server in turn, so that whatever
else the machine does meets all of them alike. What each scenario is: README.md beside this file.

Longer than 400 lines because it is one program in one file: servers, scenarios, runs, tables.

Exit code 0: every run was without violation. 1: a delivery was lost, repeated, changed or out of
order somewhere, or a run did not finish. 2: nothing could be run.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parent
BUILD: Final = HERE / "build"
SERVERS_DIR: Final = HERE / "servers"
LOADGEN: Final = BUILD / "loadgen"
VENV_PYTHON: Final = BUILD / "venv" / "bin" / "python"
NATS_UNPACKED: Final = BUILD / "nats" / "usr" / "sbin" / "nats-server"

SERVER_CORE: Final = 0
LOADGEN_CORE: Final = 1
START_WITHIN_S: Final = 20.0
STOP_WITHIN_S: Final = 10.0
INSTALL_WITHIN_S: Final = 600.0
QUIET_BUSY_MAX: Final = 0.1
FOREIGN_MAX: Final = 0.1
"""Part of one core that other processes may take during a run before it is repeated."""
ATTEMPTS_MAX: Final = 2

Result = dict[str, Any]


# What is run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """One call of loadgen. `options` are its options; `rounds_max` is for what takes very long."""

    options: str
    seconds: float | None = None
    timeout_s: float = 120.0
    rounds_max: int | None = None

    @property
    def kind(self) -> str:
        return self.options.split()[1]


SCENARIOS: Final = {
    "fan-10x100": Scenario("--scenario closed --peers 110 --senders 10 --window 32"),
    "all-100": Scenario("--scenario closed --peers 100 --senders 100 --window 4"),
    "fan-1x100": Scenario("--scenario closed --peers 101 --senders 1 --window 32"),
    "fan-10x10": Scenario("--scenario closed --peers 20 --senders 10 --window 32"),
    "fan-1x10": Scenario("--scenario closed --peers 11 --senders 1 --window 32"),
    "fan-10x1000": Scenario("--scenario closed --peers 1010 --senders 10 --window 32"),
    "pingpong-50": Scenario("--scenario pingpong --peers 100"),
    "steady-100": Scenario("--scenario open --peers 110 --senders 10 --rate 80"),
    # It takes two seconds until what is sent to the suspended one stays in the server.
    "steady-50": Scenario("--scenario open --peers 55 --senders 5 --rate 80 --warmup 3"),
    "stalled-50": Scenario(
        "--scenario open --peers 54 --senders 5 --rate 80 --stalled 1 --warmup 3"
    ),
    # Each of a hundred agents streams to one other; with and without saying that it wants no more.
    "addressed-100": Scenario(
        "--scenario open --peers 100 --senders 100 --rate 100 --audience one --wishes"
    ),
    "addressed-all-100": Scenario(
        "--scenario open --peers 100 --senders 100 --rate 100 --audience one"
    ),
    "topics-1000": Scenario(
        "--scenario closed --peers 1000 --senders 1000 --window 320 --audience topics --wishes"
    ),
    "storm-1000": Scenario("--scenario idle --peers 1000", seconds=1),
    "idle-5000": Scenario("--scenario idle --peers 5000", seconds=3, timeout_s=600, rounds_max=1),
    "beating-5000": Scenario(
        "--scenario idle --peers 5000", seconds=60, timeout_s=600, rounds_max=1
    ),
}


@dataclass(frozen=True)
class Server:
    """How to start one server on a port, what it needs, and what tells its version."""

    command: Callable[[argparse.Namespace, int], list[str]]
    prepare: Callable[[], None]
    version: Callable[[argparse.Namespace], str]
    loadgen_options: tuple[str, ...] = ()


def relay_command(options: argparse.Namespace, port: int) -> list[str]:
    """The rate limit stays in force, only beyond the load: it is a rule for single connections."""
    limits = ["--messages-per-s", "10000000", "--messages-burst", "10000000"]
    limits += ["--frames-in-per-s", "1e9", "--frames-in-burst", "1000000000"]
    limits += ["--bytes-in-per-s", "1e12", "--bytes-in-burst", "1000000000000"]
    listen = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [options.python, str(Path(options.relay) / "relay.py"), *listen, *limits]


def bun() -> Path:
    """The program itself, which npm delivers in the package for this kind of machine."""
    for path in sorted(BUILD.glob("node_modules/@oven/bun-*/bin/bun")):
        try:
            run(str(path), "--version")
        except (OSError, subprocess.SubprocessError):
            continue  # for another kind of processor
        return path
    raise FileNotFoundError("npm has no Bun for this machine")


def nats() -> str:
    installed = shutil.which("nats-server")
    if installed is None and not NATS_UNPACKED.exists():
        raise FileNotFoundError("nats-server is not installed")
    return installed or str(NATS_UNPACKED)


def prepare_node() -> None:
    """`node_modules` from package.json; without scripts, since neither package needs one."""
    wanted = (HERE / "package.json").read_text()
    stamp = BUILD / "node.stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        (BUILD / "package.json").write_text(wanted)
        run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", cwd=BUILD)
        stamp.write_text(wanted)
    # Node looks for packages from where the importing file is.
    shutil.copy(SERVERS_DIR / "node_ws.mjs", BUILD)


def prepare_bun() -> None:
    prepare_node()
    bun()


def prepare_python() -> None:
    requirements = SERVERS_DIR / "requirements.txt"
    stamp = BUILD / "venv.stamp"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    if not VENV_PYTHON.exists():
        run(sys.executable, "-m", "venv", str(BUILD / "venv"))
    pip = (str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--requirement", str(requirements))
    stamp.write_text(requirements.read_text())


def prepare_nats() -> None:
    """The installed one, else Debian's package, unpacked but not installed."""
    try:
        nats()
    except FileNotFoundError:
        folder = BUILD / "nats"
        folder.mkdir(exist_ok=True)
        run("apt-get", "download", "--quiet", "nats-server", cwd=folder)
        run("dpkg-deb", "--extract", str(next(folder.glob("*.deb"))), str(folder))
        nats()


def python_package(name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{name}'))"
    return f"{name} {run(str(VENV_PYTHON), '-c', code)}"


def relay_version(options: argparse.Namespace) -> str:
    code = "import platform as p; print(p.python_version())"
    return f"relay {relay_commit(options)} on Python {run(options.python, '-c', code)}"


def relay_commit(options: argparse.Namespace) -> str:
    try:
        return run("git", "-C", options.relay, "describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return "(no commit)"


def node_version(_: argparse.Namespace) -> str:
    package = json.loads((BUILD / "node_modules/ws/package.json").read_text())
    return f"ws {package['version']} on Node {run('node', '--version')}"


def python_server(file: str) -> Callable[[argparse.Namespace, int], list[str]]:
    return lambda _, port: [str(VENV_PYTHON), str(SERVERS_DIR / file), str(port)]


SERVERS: Final = {
    "relay": Server(relay_command, lambda: None, relay_version),
    # The same, with peers that could come back after a cut.
    "relay-resume": Server(relay_command, lambda: None, relay_version, ("--resume",)),
    "bun": Server(
        lambda _, port: [str(bun()), str(SERVERS_DIR / "bun.mjs"), str(port)],
        prepare_bun,
        lambda _: f"Bun {run(str(bun()), '--version')}",
    ),
    "nats": Server(
        lambda _, port: [nats(), "-a", "127.0.0.1", "-p", str(port)],
        prepare_nats,
        lambda _: run(nats(), "--version"),
        ("--nats",),
    ),
    "node-ws": Server(
        lambda _, port: ["node", str(BUILD / "node_ws.mjs"), str(port)], prepare_node, node_version
    ),
    "picows": Server(
        python_server("py_picows.py"), prepare_python, lambda _: python_package("picows")
    ),
    "websockets": Server(
        python_server("py_websockets.py"), prepare_python, lambda _: python_package("websockets")
    ),
}


# Running ------------------------------------------------------------------------------------------


def run(*command: str, cwd: Path | None = None) -> str:
    """What a short command prints. Raises OSError, subprocess.SubprocessError."""
    done = subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S
    )
    return done.stdout.strip()


def tell(text: str) -> None:
    """Progress, beside the tables."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def start_on(core: int, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a program on one core. Children inherit the affinity, from their first thread on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(command, text=True, **options)
    finally:
        os.sched_setaffinity(0, before)


def stop(process: subprocess.Popen[str]) -> None:
    """Ask it to end, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A server that takes connections on `port`. Raises RuntimeError if it does not."""
    with log.open("w") as output:
        process = start_on(SERVER_CORE, command, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_WITHIN_S
            while not accepts(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"did not start: {log.read_text()[-300:]}")
                time.sleep(0.05)
            time.sleep(0.5)  # for what it does after it has begun to listen
            yield process
        finally:
            stop(process)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def busy_s() -> float:
    """Processor time of all processes on all cores, and of other machines on this one (steal)."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, _, _, steal = map(int, fields[:8])
    return (user + nice + system + steal) / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(patience_s: float) -> None:
    """Until the machine has little else to do; not for ever."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = busy_s()
        time.sleep(0.5)
        if (busy_s() - before) / 0.5 <= QUIET_BUSY_MAX:
            return


def measure(name: str, scenario: Scenario, options: argparse.Namespace) -> Result:
    """One run. Its result is loadgen's, with `foreign`: the part of a core that others took."""
    port = free_port()
    seconds = scenario.seconds if scenario.seconds is not None else options.seconds
    command = [str(LOADGEN), "--port", str(port), "--seconds", str(seconds), "--warmup", "1"]
    command += ["--timeout", str(scenario.timeout_s)]
    command += [*scenario.options.split(), *SERVERS[name].loadgen_options]
    with running(SERVERS[name].command(options, port), port, BUILD / f"{name}.log") as server:
        command += ["--server-pid", str(server.pid)]
        began, busy, server_cpu = time.monotonic(), busy_s(), process_cpu_s(server.pid)
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        loadgen = start_on(LOADGEN_CORE, command, stdout=subprocess.PIPE)
        try:
            line, _ = loadgen.communicate(timeout=2 * scenario.timeout_s + seconds + 60)
        finally:
            stop(loadgen)
        generator = resource.getrusage(resource.RUSAGE_CHILDREN)
        explained = process_cpu_s(server.pid) - server_cpu
        explained += generator.ru_utime + generator.ru_stime - own.ru_utime - own.ru_stime
        result: Result = json.loads(line)
        wall = time.monotonic() - began
        result["foreign"] = max(0.0, (busy_s() - busy - explained) / wall)
    return result


def measure_in_quiet(name: str, scenario: Scenario, options: argparse.Namespace) -> Result:
    """The first run that others did not disturb, else the one that they disturbed least."""
    results: list[Result] = []
    for _ in range(ATTEMPTS_MAX if options.patience else 1):
        wait_until_quiet(options.patience)
        try:
            result = measure(name, scenario, options)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            return {"ok": False, "violations": f"{type(error).__name__}: {error}"}
        results.append(result)
        if not result["ok"] or result["foreign"] <= FOREIGN_MAX:
            return result
    return min(results, key=lambda result: result["foreign"])


FAULTS: Final = ("lost", "repeated", "echoed", "changed", "another's", "closed", "reordered")


def selftest() -> bool:
    """Does loadgen find every fault of a faulty server, and none where there is none?"""
    prepare_python()
    passed = True
    for fault in ("none", *FAULTS):
        port = free_port()
        server = [str(VENV_PYTHON), str(SERVERS_DIR / "py_faulty.py"), str(port), fault]
        loadgen = f"--scenario closed --peers 20 --senders 1 --seconds 1 --port {port}"
        with running(server, port, BUILD / "faulty.log"):
            done = subprocess.run(
                [str(LOADGEN), *loadgen.split()],
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )
        violations = json.loads(done.stdout)["violations"]
        noticed = done.returncode == 1 and violations != ""
        passed &= noticed is (fault != "none")
        tell(f"{fault}: {violations or 'no violation'}")
    return passed


# Tables -------------------------------------------------------------------------------------------


class Table:
    """Results by scenario and server; the ones that are not ok do not count."""

    def __init__(self, runs: Sequence[Result], servers: Sequence[str]) -> None:
        self.runs = runs
        self.servers = servers

    def values(self, scenario: str, server: str, of: Callable[[Result], float]) -> list[float]:
        return [
            of(run["result"])
            for run in self.runs
            if (run["scenario"], run["server"]) == (scenario, server) and run["result"]["ok"]
        ]

    def ratios(
        self, of: Callable[[Result], float], left: tuple[str, str], right: tuple[str, str]
    ) -> list[float]:
        """Left by right, each a scenario and a server, round by round."""
        found = {
            (run["round"], run["scenario"], run["server"]): of(run["result"])
            for run in self.runs
            if run["result"]["ok"]
        }
        rounds = sorted({run["round"] for run in self.runs})
        pairs = [(found.get((number, *left)), found.get((number, *right))) for number in rounds]
        return [a / b for a, b in pairs if a is not None and b]

    def lines(
        self, title: str, scenarios: Iterable[str], cell: Callable[[str, str], str]
    ) -> Iterator[str]:
        """A table with a row per scenario and a column per server."""
        rows = list(scenarios)
        if rows:
            yield from ("", f"### {title}", "")
            yield f"| scenario | {' | '.join(self.servers)} |"
            yield "|---|" + "---|" * len(self.servers)
            for scenario in rows:
                cells = (cell(scenario, server) for server in self.servers)
                yield f"| {scenario} | {' | '.join(cells)} |"


def with_spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The median, and from where to where."""
    if not values:
        return "failed"
    median = show(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({show(min(values))}–{show(max(values))})"


def rate(value: float) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def ratio(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def report(runs: Sequence[Result], options: argparse.Namespace) -> Iterator[str]:
    """All tables, as Markdown."""
    table = Table(runs, options.servers)
    load = [name for name in options.scenarios if SCENARIOS[name].kind != "idle"]
    idle = [name for name in options.scenarios if SCENARIOS[name].kind == "idle"]
    paced = [name for name in load if SCENARIOS[name].kind != "closed"]

    def efficiency(result: Result) -> float:
        return float(result["deliveries_per_cpu_s"])

    def latencies(scenario: str, server: str) -> str:
        def part(key: str) -> str:
            values = table.values(scenario, server, lambda result: result["latency_us"][key])
            return f"{statistics.median(values):.0f}" if values else "failed"

        return " / ".join(part(key) for key in ("p50", "p99", "p999"))

    def p99(result: Result) -> float:
        return float(result["latency_us"]["p99"])

    def busy(scenario: str, server: str) -> str:
        def part(key: str) -> str:
            values = table.values(scenario, server, lambda result: result[key])
            return f"{statistics.median(values):.2f}" if values else "failed"

        return " / ".join(map(part, ("server_busy", "generator_busy")))

    def against_relay(of: Callable[[Result], float]) -> Callable[[str, str], str]:
        return lambda scenario, server: with_spread(
            table.ratios(of, (scenario, server), (scenario, "relay")), ratio
        )

    def column(key: str, scale: float, unit: str) -> Callable[[str, str], str]:
        return lambda scenario, server: with_spread(
            table.values(scenario, server, lambda result: result[key] * scale),
            lambda value: f"{value:.3g}{unit}",
        )

    yield from table.lines(
        "Deliveries per CPU-second of the server: median (least–most)",
        load,
        lambda scenario, server: with_spread(table.values(scenario, server, efficiency), rate),
    )
    if "relay" in options.servers and len(options.servers) > 1:
        yield from table.lines(
            "The same as a multiple of the relay's (below 1: the relay is cheaper)",
            load,
            against_relay(efficiency),
        )
    yield from table.lines("Latency in µs: p50 / p99 / p99.9", paced, latencies)
    if "relay" in options.servers and len(options.servers) > 1:
        yield from table.lines(
            "Latency p99 as a multiple of the relay's (above 1: the relay is faster)",
            paced,
            against_relay(p99),
        )
    if {"steady-50", "stalled-50"} <= set(options.scenarios):
        yield from table.lines(
            "Latency p99 of the others with one suspended receiver, as a multiple of that without",
            ["stalled-50"],
            lambda scenario, server: with_spread(
                table.ratios(p99, (scenario, server), ("steady-50", server)), ratio
            ),
        )
    for title, key, scale, unit in (
        ("Memory per connection, all present", "rss_per_connection", 1 / 1000, " kB"),
        ("Memory before the first connection", "rss_before", 1e-6, " MB"),
        ("Part of a core while all are present and send heartbeats", "beating_cpu", 1.0, ""),
        ("Memory 3 s after all have left", "rss_after", 1e-6, " MB"),
        ("Time until all have seen all", "present_s", 1.0, " s"),
        ("Processor time in an idle second after that", "idle_cpu_s", 1000.0, " ms"),
    ):
        yield from table.lines(title, idle, column(key, scale, unit))
    yield from table.lines(
        "Was the generator the limit? Part of the time that the server / the generator was busy",
        load,
        busy,
    )
    yield ""
    disturbed = [run for run in runs if run["result"].get("foreign", 0) > FOREIGN_MAX]
    most = max((run["result"].get("foreign", 0) for run in runs), default=0)
    yield f"Other processes took at most {most:.2f} of a core; more than {FOREIGN_MAX:g} in "
    yield f"{len(disturbed)} of {len(runs)} runs."
    yield ""
    failures = [run for run in runs if not run["result"]["ok"]]
    yield "Violations: " + ("" if failures else "none.")
    for run in failures:
        violations = run["result"]["violations"]
        yield f"- {run['scenario']}, {run['server']}, round {run['round']}: {violations}"


def machine() -> str:
    """The machine, in one line."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


# The program --------------------------------------------------------------------------------------


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__.split("\n")[0])
    names: dict[str, list[str]] = {"servers": list(SERVERS), "scenarios": list(SCENARIOS)}
    for option, known in names.items():
        parser.add_argument(f"--{option}", default=",".join(known), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured in each run; 3")
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for quiet before a run, which is repeated once if others disturbed "
        "it; 0: neither; default: %(default)s",
    )
    parser.add_argument("--python", default=sys.executable, help="what runs the relay")
    parser.add_argument("--relay", default=str(PROJECT), help="the folder that has relay.py")
    parser.add_argument("--json", type=Path, help="file for the result of every run")
    parser.add_argument("--selftest", action="store_true", help="check loadgen, run nothing else")
    options = parser.parse_args()
    for option, known in names.items():
        chosen = getattr(options, option).split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"--{option}: {', '.join(unknown)}: not one of {', '.join(known)}")
        setattr(options, option, chosen)
    if "stalled-50" in options.scenarios and "steady-50" not in options.scenarios:
        options.scenarios.insert(options.scenarios.index("stalled-50"), "steady-50")
    return options


def compile_loadgen() -> None:
    BUILD.mkdir(exist_ok=True)
    run("cc", "-O2", "-o", str(LOADGEN), str(HERE / "loadgen.c"))


def prepare(options: argparse.Namespace) -> list[str]:
    """Install what the servers need. Those that cannot be had are left out. Returns versions."""
    versions = []
    for name in tuple(options.servers):
        try:
            SERVERS[name].prepare()
            versions.append(SERVERS[name].version(options))
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or error
            tell(f"{name} is left out: {reason}")
            options.servers.remove(name)
    if not options.servers:
        raise FileNotFoundError("no server can be run")
    return versions


def main() -> int:
    options = read_options()
    if not {SERVER_CORE, LOADGEN_CORE} <= os.sched_getaffinity(0):
        tell(f"cores {SERVER_CORE} and {LOADGEN_CORE} are needed")
        return 2
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    # So that a SIGTERM too stops what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        compile_loadgen()
        if options.selftest:
            return 0 if selftest() else 1
        versions = prepare(options)
    except (OSError, subprocess.SubprocessError) as error:
        tell(f"nothing can be run: {getattr(error, 'stderr', None) or error}")
        return 2
    runs: list[Result] = []
    for number in range(1, options.rounds + 1):
        for scenario in options.scenarios:
            if number > (SCENARIOS[scenario].rounds_max or options.rounds):
                continue
            # Another one goes first in every round.
            first = (number - 1) % len(options.servers)
            for server in options.servers[first:] + options.servers[:first]:
                result = measure_in_quiet(server, SCENARIOS[scenario], options)
                runs.append(
                    {"round": number, "scenario": scenario, "server": server, "result": result}
                )
                tell(f"round {number}: {scenario}: {server}: {brief(result)}")
                if options.json:
                    document = {"machine": machine(), "versions": versions, "runs": runs}
                    options.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"Machine: {machine()}  \nServers: {'; '.join(versions)}  \n")
    sys.stdout.write(f"Command: python benchmarks/run.py {' '.join(sys.argv[1:])}\n")
    sys.stdout.write("\n".join(report(runs, options)) + "\n")
    return 0 if runs and all(run["result"]["ok"] for run in runs) else 1


def brief(result: Result) -> str:
    if not result["ok"]:
        return f"VIOLATION: {result['violations']}"
    if result["scenario"] == "idle":
        per_connection = result["rss_per_connection"] / 1000
        return f"{per_connection:.1f} kB per connection, all present in {result['present_s']:.2f} s"
    p99 = result["latency_us"]["p99"]
    return f"{rate(result['deliveries_per_cpu_s'])} per CPU-second, p99 {p99:.0f} µs"


if __name__ == "__main__":
    sys.exit(main())
