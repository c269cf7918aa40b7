"""The package: its public names, what the wheel has in it, what is missing without an extra, its version."""  # noqa: E501

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import agi_diy_relay
from distribution.staging import OURS, PACKAGE, Missed, _copy, missed, rewrite
from protocol import about
from tests import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this clone, built by hatchling of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_public_name_is_there_and_is_imported_from_this_clone() -> None:
    for name in agi_diy_relay.__all__:
        assert getattr(agi_diy_relay, name) is not None
    assert Path(agi_diy_relay.__file__).parent.parent == ROOT


def test_the_public_names_are_exactly_what_the_facade_imports() -> None:
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(imported) == agi_diy_relay.__all__


def test_the_wheel_puts_one_package_and_nothing_else_into_site_packages(
    wheel: zipfile.ZipFile,
) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {PACKAGE, f"{PACKAGE}-{about.__version__}.dist-info"}


def test_the_wheel_has_every_module_the_types_and_what_the_relay_serves(
    wheel: zipfile.ZipFile,
) -> None:
    names = set(wheel.namelist())
    modules = [ROOT / "relay.py", *(ROOT / PACKAGE).glob("*.py")]
    modules += [path for top in ("actors", "protocol") for path in (ROOT / top).rglob("*.py")]
    inside = {str(path.relative_to(ROOT)) for path in modules}
    assert {name if name.startswith(PACKAGE) else f"{PACKAGE}/{name}" for name in inside} <= names
    others = {"py.typed", "browser/relay-client.js", "browser/index.html"}
    for folder in ("browser/src", "browser/console"):
        others |= {f"{folder}/{path.name}" for path in (ROOT / folder).iterdir()}
    assert {f"{PACKAGE}/{name}" for name in others} <= names


def test_the_wheel_imports_nothing_of_ours_from_outside_its_package(
    wheel: zipfile.ZipFile,
) -> None:
    for name in wheel.namelist():
        if name.endswith(".py"):
            assert list(missed(wheel.read(name).decode())) == [], name


def test_the_wheel_runs_alone_beside_a_users_own_actors_and_protocol(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)
    for name in OURS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not ours')\n")
    code = (
        "import sys, agi_diy_relay, agi_diy_relay.relay\n"
        f"print([name for name in {OURS!r} if name in sys.modules])"
    )
    command = [sys.executable, "-P", "-c", code]
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_name_that_the_rewriting_misses_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    for code in ("import protocol.codec", "import json, relay", "x = 'actors.client.peer'"):
        source.write_text(code)
        with pytest.raises(Missed, match=re.escape(f"{source}, line 1")):
            _copy(source, tmp_path / "copy.py")


def test_the_rewriting_leaves_other_packages_and_the_words_alone() -> None:
    for text in (
        "from actors_of_mine import x",
        "from websockets.protocol import State",
        "import protocols",
        "imports go relay.py -> actors -> protocol",
        'type: "relay"',
    ):
        assert rewrite(text) == text


# Extras -------------------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({packages!r}))  # None: cannot be imported
"""


def only_in(extra: str) -> tuple[str, ...]:
    """The packages that a plain installation does not have."""
    return tuple(name for name in about.EXTRAS[extra] if name not in about.PLAIN)


def without(packages: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run code where these packages cannot be imported, whatever is installed."""
    program = WITHOUT.format(packages=packages) + code
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_public_names_need_no_extra() -> None:
    for extra in about.EXTRAS:
        done = without(only_in(extra), "from agi_diy_relay import *; print(join.__name__)")
        assert (done.stdout, done.stderr) == ("join\n", ""), extra


@pytest.mark.parametrize(
    ("call", "what"),
    [("agentcore(arn, mesh='m')", "agentcore()"), ("oauth(arn, 't', mesh='m')", "oauth()")],
)
def test_a_call_that_needs_aws_names_the_extra_in_one_sentence(call: str, what: str) -> None:
    code = f"""
from agi_diy_relay import agentcore, oauth
arn = "arn:aws:bedrock-agentcore:eu-west-1:123456789012:runtime/x"
try:
    {call}
except ImportError as error:
    print(error)
"""
    done = without(only_in("agentcore"), code)
    assert done.stderr == ""
    assert done.stdout == (
        f"{what} needs bedrock_agentcore, which is not installed: "
        "pip install 'agi-diy-relay[agentcore]'\n"
    )


RUN = "import runpy; sys.argv = [{name!r}, 'simulate']; runpy.{how}({name!r}, run_name='__main__')"


@pytest.mark.parametrize(
    ("what", "packages", "how", "name"),
    [
        ("the relay", only_in("relay"), "run_module", "agi_diy_relay"),
        ("the relay", about.EXTRAS["relay"], "run_path", "relay.py"),
        ("simulate", about.PLAIN, "run_module", "protocol.verification"),
    ],
)
def test_a_program_without_its_packages_says_in_one_line_what_to_install(
    what: str, packages: tuple[str, ...], how: str, name: str
) -> None:
    extra = "relay" if what == "the relay" else "verification"
    done = without(packages, RUN.format(how=how, name=name))
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{what} needs ")
    assert done.stderr.endswith(f": pip install 'agi-diy-relay[{extra}]'\n")


def test_the_state_machine_without_hypothesis_names_the_extra() -> None:
    done = without(only_in("verification"), "import protocol.verification.machine")
    assert "protocol.about.MissingExtra: protocol.verification.machine needs " in done.stderr


@pytest.mark.parametrize(
    ("folder", "brought_by"),
    [
        ("actors/relay", {*about.PLAIN}),
        ("actors/client", {*about.PLAIN, *about.EXTRAS["agentcore"]}),
        ("actors/transports", {*about.EXTRAS["relay"]}),
        ("actors/host", {*about.EXTRAS["relay"], "opentelemetry"}),  # AgentCore brings that one
        ("protocol", {*about.EXTRAS["verification"], "pytest"}),  # for tests of other projects
    ],
)
def test_what_is_imported_is_what_an_extra_is_said_to_bring(
    folder: str, brought_by: set[str]
) -> None:
    imported = {
        name.partition(".")[0]
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(OURS) - sys.stdlib_module_names <= brought_by


def test_a_missing_module_of_no_extra_is_a_fault_and_is_raised_again() -> None:
    error = ModuleNotFoundError(name="actors.nowhere")
    with pytest.raises(ModuleNotFoundError) as raised:
        about.missing_extra(error, "relay", "the relay")
    assert raised.value is error


# Dependencies -------------------------------------------------------------------------------------


def uv(*arguments: str) -> str:
    """Run uv without any network, in the clone."""
    program = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")
    if program is None:
        pytest.skip("uv is not installed")
    command = [program, "--offline", "--no-progress", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"run: make lock\n{done.stderr}"
    return done.stdout


def requirements(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_the_lock_is_current() -> None:
    uv("lock", "--check")


def test_what_agentcore_installs_is_pinned_as_the_lock_says() -> None:
    pinned = (ROOT / "requirements.txt").read_text()
    command = pinned.splitlines()[1].removeprefix("#").split()
    assert command[:2] == ["uv", "export"]
    assert command[-2:] == ["--output-file", "requirements.txt"]
    assert requirements(uv(*command[1:-2])) == requirements(pinned)
    names = {re.split(r"[=<> ;]", line)[0] for line in requirements(pinned)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["relay"]]
    assert {re.split(r"[=<> ;[]", need)[0] for need in needed} <= names
    assert "aws-opentelemetry-distro" in names


def test_the_lock_names_no_source_but_pypi() -> None:
    urls = re.findall(r'"([a-z+]+://[^/"]+)', (ROOT / "uv.lock").read_text())
    assert set(urls) == {"https://pypi.org", "https://files.pythonhosted.org"}


def test_the_plain_installation_is_the_client_and_the_runtime() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[=<> ;]", need)[0] for need in project["dependencies"]}
    assert names == {"anyio", "attrs", "msgspec", "websockets"}


# Version ------------------------------------------------------------------------------------------


def test_python_npm_and_the_changelog_agree_on_the_version(wheel: zipfile.ZipFile) -> None:
    assert agi_diy_relay.__version__ == about.__version__
    (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    assert f"\nVersion: {about.__version__}\n" in wheel.read(metadata).decode()
    npm = json.loads((ROOT / "browser" / "package.json").read_text())
    assert npm["version"] == about.__version__
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == about.__version__
