"""The browser client as a package: what is in it, its types, its examples."""

import graphlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import ROOT, Node

PACKAGE = ROOT / "browser"
TOOLS = PACKAGE / "node_modules/.bin"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which somebody has installed what `npm pack` makes: `node_modules`, no more."""
    if shutil.which("npm") is None or not (TOOLS / "tsc").exists():
        pytest.skip("needs npm and the module's tools: npm ci --prefix browser")
    there = tmp_path_factory.mktemp("packed")
    source = there / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("node_modules", "types"))
    (source / "node_modules").symlink_to(PACKAGE / "node_modules")
    pack = ["npm", "pack", "--offline", "--silent", "--cache", str(there / "cache")]
    subprocess.run(pack, cwd=source, capture_output=True, check=True)
    (archive,) = source.glob("*.tgz")
    package = there / "node_modules/agi-diy-relay-client"
    package.mkdir(parents=True)
    unpack = ["tar", "-xzf", str(archive), "-C", str(package), "--strip-components", "1"]
    subprocess.run(unpack, check=True)
    return there


def test_the_package_holds_the_client_its_types_and_nothing_else(packed: Path) -> None:
    package = packed / "node_modules/agi-diy-relay-client"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    rooms = {path.stem for path in (PACKAGE / "src").glob("*.js")}
    assert files == {
        *("package.json", "README.md", "LICENSE", "relay-client.js", "types/relay-client.d.ts"),
        *(f"src/{room}.js" for room in rooms),
        *(f"types/src/{room}.d.ts" for room in rooms),
    }


def test_a_program_that_installed_the_package_can_import_it(packed: Path) -> None:
    script = (
        'import { sessionId } from "agi-diy-relay-client"; console.log(await sessionId("my mesh"))'
    )
    run = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(run, cwd=packed, capture_output=True, check=True, text=True)
    assert done.stdout.startswith("mesh-22132cb4")


def test_the_package_depends_on_nothing_and_has_this_projects_licence() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    assert [key for key in package if "ependencies" in key] == ["devDependencies"]
    assert not {"preinstall", "install", "postinstall", "prepare"} & set(package["scripts"])
    assert package["name"] == "agi-diy-relay-client"
    assert package["license"] == "Apache-2.0"
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def code(room: str) -> str:
    """The text of a room, without its comments. (Types in them may refer to any room.)"""
    text = (PACKAGE / f"src/{room}.js").read_text()
    return re.sub(r"(?m)//.*$", "", re.sub(r"(?s)/\*.*?\*/", "", text))


def instructions(room: str) -> str:
    """The same without the sentences in it."""
    text = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', code(room))
    return re.sub(r"`[^`]*`", lambda found: " ".join(re.findall(r"\$\{[^}]*\}", found[0])), text)


def imported(room: str) -> list[str]:
    """The rooms that this one imports."""
    names = re.findall(r"""(?<!["'])\b(?:from|import)\s*\(?\s*["']([^"']+)["']""", code(room))
    for name in names:
        assert re.fullmatch(r"\./\w+\.js", name), f"{room}.js imports {name}"
    return [name.removeprefix("./").removesuffix(".js") for name in names]


def test_rooms_import_only_rooms_and_never_in_a_circle() -> None:
    """So that the module needs no build step, in a page as it is served."""
    rooms = {path.stem: imported(path.stem) for path in (PACKAGE / "src").glob("*.js")}
    graphlib.TopologicalSorter(rooms).prepare()
    assert {name for names in rooms.values() for name in names} <= set(rooms)


def test_what_is_decided_is_decided_without_the_world() -> None:
    """In the rooms that are called as in Python, with nothing but one another and UTF-8."""
    twins = {path.stem for path in (ROOT / "protocol/member").glob("*.py")} - {"__init__"}
    decided = twins | {"agents", "json", "limits", "rate"}
    world = r"\b(WebSocket|setTimeout|performance|Date|random|crypto|document|fetch|async|await)\b"
    for room in decided:
        assert set(imported(room)) <= decided | {"bytes"}, room
        assert not re.search(world, instructions(room)), room


@pytest.mark.skipif(not (TOOLS / "tsc").exists(), reason="needs npm ci --prefix browser")
def test_linter_formatter_and_types_have_nothing_to_say() -> None:
    done = subprocess.run(
        ["npm", "run", "--silent", "check"],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_export_is_used_in_the_type_check(node: Node) -> None:
    used = (ROOT / "tests/browser/uses.ts").read_text()
    exports = node("return Object.keys(client)")
    assert [name for name in exports if not re.search(rf"\b{name}\b", used)] == []


def test_the_types_hold_under_strict(packed: Path) -> None:
    shutil.copy(ROOT / "tests/browser/uses.ts", packed / "uses.ts")
    (packed / "package.json").write_text('{"type": "module"}')
    options = ["--strict", "--noEmit", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes"]
    options += ["--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    command = [str(TOOLS / "tsc"), *options, "uses.ts"]
    done = subprocess.run(command, cwd=packed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_readmes_example_for_agentcore_connects_with_a_signed_url(node: Node) -> None:
    """With a stand-in for Cognito, and for the WebSocket, which only notes where it should go, and
    then does what a browser does with a URL that it refuses."""
    blocks = re.findall(r"^```js\n(.*?)^```", (PACKAGE / "README.md").read_text(), re.M | re.S)
    example = re.sub(r"^import .*\n", "", blocks[-1], flags=re.MULTILINE)
    assert example != blocks[-1]
    script = f"""
        const opened = [];
        globalThis.WebSocket = class {{
            constructor(url) {{ opened.push(url); throw new DOMException("", "SecurityError"); }}
        }};
        const answers = {{ IdentityId: "i", Credentials: {{ AccessKeyId: "AKID", SecretKey: "S",
            SessionToken: "T", Expiration: Date.now() / 1000 + 3600 }} }};
        globalThis.fetch = async () => ({{ ok: true, json: async () => answers }});
        const login = {{ idToken: async () => "token" }};
        const {{ agentcore, cognitoCredentials, peerId }} = client;
        const join = (options) => client.join(options).catch((error) => error);
        {example}
        return [opened, peer.name];
    """
    (url,), name = node(script)
    assert url.startswith("wss://bedrock-agentcore.us-west-2.amazonaws.com/runtimes/arn%3Aaws%3A")
    assert "X-Amz-Credential=AKID%2F" in url
    assert name == "BadAddress"
