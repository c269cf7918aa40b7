"""Deployment as docs/agentcore.md describes it, as far as a machine without AWS allows.

The AgentCore toolkit runs for real, on a copy of the project: `launch --local`, and `configure` and
`launch` against moto in AWS's place. moto keeps what was uploaded; that package is looked at and
started. Only loopback is contacted, but for uv, which gets packages from PyPI. What is shown by
none of this: ARM64, AWS's own start of the package, and the edge.

Takes a minute, so only with CI=1 in the environment. Needs the toolkit (build/ci-toolkit, as
.ci/run makes it, or on the PATH), uv, zip and moto.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from protocol.session import TOKEN_HEADER
from tests import ROOT
from tests.worlds.live import open_sync
from tests.worlds.ports import free_port

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI"), reason="takes a minute and packages from PyPI; set CI=1 to run it"
)

AGENT: Final = "agi_diy_relay"
RUNTIME: Final = "3.13"  # as in .bedrock_agentcore.yaml
PATIENCE_S: Final = 120.0  # for what downloads packages
MEGABYTE: Final = 2**20
EM_AARCH64: Final = 183
INDISPENSABLE: Final = ("msgspec", "pydantic_core", "cryptography", "_cffi_backend")
"""The packages whose compiled parts the relay cannot do without. (The SDK needs pydantic. Tokens
need cryptography, which needs cffi.)"""

# Tools --------------------------------------------------------------------------------------------


@attrs.frozen
class Tools:
    """What the tests start, and the environment in which they do."""

    agentcore: str
    python: str
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path) -> str:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def find_toolkit() -> str | None:
    """The Python toolkit's `agentcore`; the npm package has a command of the same name."""
    folders = [str(ROOT / "build" / "ci-toolkit" / "bin"), *os.get_exec_path()]
    for folder in folders:
        found = shutil.which("agentcore", path=folder)
        if found and b"python" in Path(found).read_bytes().split(b"\n", 1)[0]:
            return found
    return None


def find_python() -> str:
    """A Python of the version that the runtime has, or else the one that runs the tests."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [
        shutil.which(f"python{RUNTIME}"),
        *sorted(map(str, pyenv.glob(f"versions/{RUNTIME}.*/bin/python{RUNTIME}"))),
    ]
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    return sys.executable


def version_of(python: str) -> str:
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    agentcore = find_toolkit()
    if agentcore is None:
        pytest.skip("bedrock-agentcore-starter-toolkit is not installed")
    scripts = sysconfig.get_path("scripts")
    uv = shutil.which("uv", path=scripts) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    if shutil.which("zip") is None:
        pytest.skip("zip is not installed; the toolkit insists on it")
    python = find_python()
    nothing = str(tmp_path_factory.mktemp("aws") / "nothing")
    ours = ("AWS_", "BEDROCK_", "DOCKER_", "OTEL_", "PYTHON", "RELAY_", "VIRTUAL_ENV")
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(ours) and name not in ("HOST", "PORT")
        },
        "PATH": os.pathsep.join(
            [str(Path(uv).parent), str(Path(python).parent), os.environ["PATH"]]
        ),
        "UV_PYTHON_DOWNLOADS": "never",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AGENTCORE_SUPPRESS_RECOMMENDATION": "1",
    }
    return Tools(agentcore, python, environment)


def checkout(target: Path) -> Path:
    """A copy of the project as a clone would have it, with what is not committed yet."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def documented(*words: str, without: Collection[str] = ()) -> list[str]:
    """The arguments in the one line of docs/agentcore.md that begins with these words."""
    page = (ROOT / "docs" / "agentcore.md").read_text()
    commands = [line.split(" #")[0].split() for line in page.splitlines() if line[:4] == "    "]
    (found,) = [c for c in commands if c[: len(words)] == list(words) and not {*without} & {*c}]
    return found[1:]


# Processes ----------------------------------------------------------------------------------------


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(condition: Callable[[], object], what: Callable[[], str], within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, what()
        time.sleep(0.1)


@contextlib.contextmanager
def running(
    *command: str, cwd: Path, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own, of which nothing is left afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(json.load(answer)["status"] == "Healthy")
    except (OSError, urllib.error.URLError):
        return False


def exchange(port: int) -> None:
    """Two peers join, one speaks, the other hears; and the relay has counted them."""
    url = f"ws://127.0.0.1:{port}/ws"
    with open_sync(url) as ann, open_sync(url) as bob:
        for name, peer in (("ann", ann), ("bob", bob)):
            peer.send(json.dumps({"type": "presence", "from": name, "data": {"agents": ["coder"]}}))
            assert json.loads(peer.recv(PATIENCE_S))["from"] == name
        said = json.dumps({"type": "broadcast", "from": "ann", "data": "hello"})
        ann.send(said)
        heard = ""
        while heard != said:
            heard = str(bob.recv(PATIENCE_S))
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data=b"{}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert json.load(answer) == {"status": "ok", "peers": ["ann", "bob"], "count": 2}


# launch --local -----------------------------------------------------------------------------------


def test_launch_local_serves_two_peers_from_a_clean_checkout(tools: Tools, tmp_path: Path) -> None:
    project = checkout(tmp_path / "project")
    version = version_of(tools.python)
    if version != RUNTIME:  # no such Python here, and none is downloaded
        config = project / ".bedrock_agentcore.yaml"
        ours = "PYTHON_" + version.replace(".", "_")
        config.write_text(re.sub(r"PYTHON_\d_\d+", ours, config.read_text()))
    port, log = free_port(), tmp_path / "log"
    command = [tools.agentcore, *documented("agentcore", "launch", "--local")]
    command += ["--env", f"PORT={port}", "--env", "HOST=127.0.0.1"]
    with running(*command, cwd=project, environment=tools.environment, log=log) as toolkit:
        eventually(lambda: toolkit.poll() is not None or answers(port), log.read_text, PATIENCE_S)
        assert toolkit.poll() is None, log.read_text()
        exchange(port)
    eventually(lambda: not is_open(port), lambda: "something is left", PATIENCE_S)


# launch -------------------------------------------------------------------------------------------


@attrs.frozen
class Deployed:
    """What the toolkit made in the account that moto plays."""

    package: Path
    runtime: dict[str, Any]
    project: Path

    def names(self) -> list[str]:
        with zipfile.ZipFile(self.package) as package:
            return package.namelist()


@pytest.fixture(scope="module")
def deployed(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3")
    folder = tmp_path_factory.mktemp("launch")
    project = checkout(folder / "project")
    for left_lying in (".venv/bin/python", "build/x.py", "benchmarks/build/x", "actors/x.pyc"):
        (project / left_lying).parent.mkdir(parents=True, exist_ok=True)
        (project / left_lying).write_text("")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        **tools.environment,
        "AWS_ENDPOINT_URL": endpoint,
        "BEDROCK_AGENTCORE_CP_ENDPOINT": endpoint,
        "BEDROCK_AGENTCORE_DP_ENDPOINT": endpoint,
    }
    tools = attrs.evolve(tools, environment=environment)
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(*moto, cwd=folder, environment=environment, log=folder / "moto.log"):
        eventually(lambda: is_open(port), (folder / "moto.log").read_text, PATIENCE_S)
        session = boto3.Session("testing", "testing", region_name="us-east-1")
        control = session.client("bedrock-agentcore-control", endpoint_url=endpoint)

        tools.run(tools.agentcore, *documented("agentcore", "configure"), cwd=project)
        log = folder / "launch.log"
        command = [
            tools.agentcore,
            *documented("agentcore", "launch", without=("--local", "--env")),
        ]
        with running(*command, cwd=project, environment=environment, log=log) as toolkit:

            def created() -> Any:
                return control.list_agent_runtimes()["agentRuntimes"]

            eventually(lambda: toolkit.poll() is not None or created(), log.read_text, PATIENCE_S)
            assert created(), log.read_text()
            runtime = control.get_agent_runtime(agentRuntimeId=created()[0]["agentRuntimeId"])
            # AWS makes this endpoint by itself, and the toolkit waits for it; moto does not.
            control.create_agent_runtime_endpoint(
                agentRuntimeId=runtime["agentRuntimeId"], name="DEFAULT"
            )
            assert toolkit.wait(PATIENCE_S) == 0, log.read_text()
        where = runtime["agentRuntimeArtifact"]["codeConfiguration"]["code"]["s3"]
        package = folder / "deployment.zip"
        s3 = session.client("s3", endpoint_url=endpoint)
        s3.download_file(where["bucket"], where["prefix"], str(package))
    return Deployed(package, runtime, project)


def test_launch_creates_the_runtime_as_configured(deployed: Deployed) -> None:
    runtime = deployed.runtime
    assert runtime["agentRuntimeName"] == AGENT
    assert runtime["protocolConfiguration"] == {"serverProtocol": "HTTP"}
    assert runtime["networkConfiguration"]["networkMode"] == "PUBLIC"
    assert runtime["requestHeaderConfiguration"] == {"requestHeaderAllowlist": [TOKEN_HEADER]}
    code = runtime["agentRuntimeArtifact"]["codeConfiguration"]
    assert code["runtime"] == "PYTHON_" + RUNTIME.replace(".", "_")
    instrumented = "aws-opentelemetry-distro" in (ROOT / "requirements.txt").read_text()
    assert code["entryPoint"] == ["opentelemetry-instrument"] * instrumented + ["relay.py"]


def test_the_package_has_what_the_relay_needs(deployed: Deployed) -> None:
    wanted = [Path("relay.py"), Path("requirements.txt")]
    for folder in ("actors", "protocol", "browser"):
        files = (deployed.project / folder).rglob("*.*")
        wanted += [f.relative_to(deployed.project) for f in files if f.suffix != ".pyc"]
    with zipfile.ZipFile(deployed.package) as package:
        for name in wanted:
            assert package.read(str(name)) == (deployed.project / name).read_bytes()


@pytest.mark.parametrize(
    "folder", ["tests", "docs", "edge", "build", "benchmarks/build", ".venv", ".git", "__pycache__"]
)
def test_the_package_leaves_out(deployed: Deployed, folder: str) -> None:
    assert not [name for name in deployed.names() if f"/{name}".startswith(f"/{folder}/")]


def test_the_package_has_no_configuration_and_no_compiled_python(deployed: Deployed) -> None:
    assert not [n for n in deployed.names() if n.endswith((".pyc", ".bedrock_agentcore.yaml"))]


def test_the_package_is_small(deployed: Deployed) -> None:
    """AWS takes 250 MB as a zip and 750 MB unpacked; we stay under a third of both."""
    with zipfile.ZipFile(deployed.package) as package:
        unpacked = sum(info.file_size for info in package.infolist())
    assert deployed.package.stat().st_size < 80 * MEGABYTE
    assert unpacked < 250 * MEGABYTE


def test_what_the_toolkit_cannot_leave_out_is_little(deployed: Deployed) -> None:
    """Its list of what to leave out is its own, and ends with tests, docs and what tools make."""
    ours = {str(path.relative_to(deployed.project)) for path in deployed.project.rglob("*")}
    needed = ("relay.py", "requirements.txt", "actors/", "protocol/", "browser/")
    with zipfile.ZipFile(deployed.package) as package:
        infos = [i for i in package.infolist() if i.filename in ours]
    sizes = {i.filename: i.file_size for i in infos if not i.filename.startswith(needed)}
    assert sizes.pop("uv.lock") < MEGABYTE  # it grows with the tools of the tests
    assert sum(sizes.values()) < MEGABYTE / 4


def compiled(package: zipfile.ZipFile) -> list[str]:
    return [name for name in package.namelist() if re.search(r"\.so(\.\d+)*$", name)]


def test_everything_compiled_in_the_package_is_for_linux_on_arm64(deployed: Deployed) -> None:
    with zipfile.ZipFile(deployed.package) as package:
        names = compiled(package)
        assert {name.split("/")[0].split(".")[0] for name in names} >= set(INDISPENSABLE)
        for name in names:
            header = package.read(name)[:20]
            assert header[:4] == b"\x7fELF"
            assert int.from_bytes(header[18:20], "little") == EM_AARCH64, name


# The package started ------------------------------------------------------------------------------


def distributions(package: zipfile.ZipFile) -> dict[str, str]:
    """For every file of a dependency: which, as `name==version`."""
    owners = {}
    for record in package.namelist():
        found = re.fullmatch(r"([^/]+)-([^/-]+)\.dist-info/RECORD", record)
        if found:
            for line in package.read(record).decode().splitlines():
                owners[line.split(",")[0]] = f"{found[1]}=={found[2]}"
    return owners


@pytest.fixture(scope="module")
def compiled_here(
    deployed: Deployed, tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The dependencies that have compiled parts, same versions, for this machine."""
    with zipfile.ZipFile(deployed.package) as package:
        owners = distributions(package)
        wanted = sorted({owners[name] for name in compiled(package)})
    target = tmp_path_factory.mktemp("compiled")
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    install += ["--python", tools.python, "--target", str(target)]
    tools.run(*install, *wanted, cwd=target)
    return target


@pytest.fixture(params=["all compiled parts", "only the indispensable compiled parts"])
def unpacked(
    request: pytest.FixtureRequest, deployed: Deployed, compiled_here: Path, tmp_path: Path
) -> Path:
    """The package, unpacked. All that is not ARM64 is its own; the rest stands in for ARM64."""
    folder = tmp_path / "var" / "task"
    with zipfile.ZipFile(deployed.package) as package:
        package.extractall(folder)
        replaced = {str(Path(name).parent) for name in compiled(package)}
        for gone in compiled(package):
            (folder / gone).unlink()
    for file in compiled_here.rglob("*.so*"):
        name = file.relative_to(compiled_here)
        if str(name.parent) in replaced and (
            request.param.startswith("all") or name.parts[0].split(".")[0] in INDISPENSABLE
        ):
            shutil.copy(file, folder / name)
    return folder


@pytest.fixture
def bare_python(tools: Tools, tmp_path: Path) -> str:
    """A Python without any package."""
    tools.run("uv", "venv", "--quiet", "--python", tools.python, "bare", cwd=tmp_path)
    return str(tmp_path / "bare" / "bin" / "python")


def test_the_package_starts_alone(
    deployed: Deployed, tools: Tools, unpacked: Path, bare_python: str, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "log"
    # In a container the relay binds all interfaces; here it is told not to.
    environment = {**tools.environment, "HOST": "127.0.0.1", "PORT": str(port)}
    command = [bare_python, "relay.py"]
    entry = deployed.runtime["agentRuntimeArtifact"]["codeConfiguration"]["entryPoint"]
    if entry[0] == "opentelemetry-instrument":
        command = [bare_python, f"bin/{entry[0]}", *command]
        environment["PYTHONPATH"] = str(unpacked)
        environment["AGENT_OBSERVABILITY_ENABLED"] = "true"  # or it looks for an EC2 machine
        for signals in ("TRACES", "METRICS", "LOGS"):
            environment[f"OTEL_{signals}_EXPORTER"] = "none"
    with running(*command, cwd=unpacked, environment=environment, log=log) as relay:
        eventually(lambda: relay.poll() is not None or answers(port), log.read_text, 60)
        assert relay.poll() is None, log.read_text()
        exchange(port)


def test_started_alone_it_uses_no_package_of_this_machine(
    tools: Tools, unpacked: Path, bare_python: str
) -> None:
    program = (
        "import json, sys, relay, uvicorn, msgspec; "
        "print(json.dumps([m.__file__ for m in list(sys.modules.values()) "
        "if getattr(m, '__file__', None) and '-packages' in m.__file__ ]))"
    )
    assert json.loads(tools.run(bare_python, "-c", program, cwd=unpacked)) == []
