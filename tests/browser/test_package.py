"""The browser client as a package: what is in it, its types, its examples."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import ROOT, Node

PACKAGE = ROOT / "browser"
TSC = next(
    (str(p) for p in [ROOT / "build/node/node_modules/.bin/tsc"] if p.exists()), shutil.which("tsc")
)


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_the_package_holds_the_client_its_types_and_nothing_else(tmp_path: Path) -> None:
    command = ["npm", "pack", "--dry-run", "--json", "--offline", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, check=True, timeout=60)
    (packed,) = json.loads(done.stdout)
    files = {file["path"] for file in packed["files"]}
    names = {"package.json", "README.md", "LICENSE", "relay-client.js", "relay-client.d.ts"}
    assert files == names
    assert packed["name"] == "agi-diy-relay-client"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_program_that_installed_the_package_can_import_it(tmp_path: Path) -> None:
    pack = ["npm", "pack", "--offline", "--silent", "--cache", str(tmp_path), str(PACKAGE)]
    done = subprocess.run(
        pack, cwd=tmp_path, capture_output=True, check=True, timeout=60, text=True
    )
    there = tmp_path / "node_modules/agi-diy-relay-client"
    there.mkdir(parents=True)
    unpack = ["tar", "-xzf", done.stdout.strip(), "-C", str(there), "--strip-components", "1"]
    subprocess.run(unpack, cwd=tmp_path, check=True)
    script = (
        'import { sessionId } from "agi-diy-relay-client"; console.log(await sessionId("my mesh"))'
    )
    run = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, check=True, timeout=60, text=True)
    assert done.stdout.startswith("mesh-22132cb4")


def test_the_package_depends_on_nothing_and_has_this_projects_licence() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    assert not [key for key in package if "ependencies" in key or key == "scripts"]
    assert package["license"] == "Apache-2.0"
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_every_export_has_a_type_and_is_used_in_the_type_check(node: Node) -> None:
    exports = set(node("return Object.keys(client)"))
    types = (PACKAGE / "relay-client.d.ts").read_text()
    declared = set(re.findall(r"^export (?:function|class|const) (\w+)", types, re.MULTILINE))
    assert declared == exports
    limits = re.search(r"^export interface Limits \{(.*?)^\}", types, re.MULTILINE | re.DOTALL)
    assert limits is not None
    assert re.findall(r"(\w+): number", limits[1]) == node("return Object.keys(client.LIMITS)")
    used = (ROOT / "tests/browser/uses.ts").read_text()
    assert [name for name in exports if not re.search(rf"\b{name}\b", used)] == []


@pytest.mark.skipif(
    TSC is None, reason="needs typescript: npm install --prefix build/node typescript"
)
def test_the_types_hold_under_strict(tmp_path: Path) -> None:
    assert TSC is not None
    there = tmp_path / "node_modules"
    there.mkdir()
    (there / "agi-diy-relay-client").symlink_to(PACKAGE)
    shutil.copy(ROOT / "tests/browser/uses.ts", tmp_path / "uses.ts")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    options = ["--strict", "--noEmit", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes"]
    options += ["--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    command = [TSC, *options, "uses.ts"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_readmes_example_for_agentcore_connects_with_a_signed_url(node: Node) -> None:
    """With a stand-in for Cognito, and for the WebSocket, which only notes where it should go."""
    blocks = re.findall(r"^```js\n(.*?)^```", (PACKAGE / "README.md").read_text(), re.M | re.S)
    example = re.sub(r"^import .*\n", "", blocks[-1], flags=re.MULTILINE)
    assert example != blocks[-1]
    script = f"""
        const opened = [];
        globalThis.WebSocket = class {{ constructor(url) {{ opened.push(url); }} close() {{}} }};
        const answers = {{ IdentityId: "i", Credentials: {{ AccessKeyId: "AKID", SecretKey: "S",
            SessionToken: "T", Expiration: Date.now() / 1000 + 3600 }} }};
        globalThis.fetch = async () => ({{ ok: true, json: async () => answers }});
        const login = {{ idToken: async () => "token" }};
        const {{ agentcore, cognitoCredentials, peerId }} = client;
        const join = (options) =>
            client.join({{ ...options, joinTimeoutS: 0.5 }}).catch((error) => error);
        {example}
        return [opened, peer.name];
    """
    (url,), name = node(script)
    assert url.startswith("wss://bedrock-agentcore.us-west-2.amazonaws.com/runtimes/arn%3Aaws%3A")
    assert "X-Amz-Credential=AKID%2F" in url
    assert name == "Unreachable"
