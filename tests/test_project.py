"""The project itself: who imports whom, what is packaged, what the documents say."""

import ast
import sys
from pathlib import Path

import pytest

from tests import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import generate

from protocol.mesh.routing import ROUTES, Route

MAY_IMPORT = {"protocol": {"protocol"}, "actors": {"actors", "protocol"}}
OURS = {"relay", "actors", "protocol", "tests", "examples", "benchmarks"}
PROTOCOL_LIBRARIES = {"attrs", "msgspec"}
NOT_IN_PROTOCOL = {"asyncio", "anyio", "time", "random", "logging", "threading", "socket"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_downward_only(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        ours = imports(path) & OURS
        if "verification" not in path.parts:
            assert ours <= MAY_IMPORT[package], path


def test_the_protocol_knows_no_io_no_time_and_no_chance() -> None:
    for path in (
        path for path in (ROOT / "protocol").rglob("*.py") if "verification" not in path.parts
    ):
        used = imports(path)
        assert not used & NOT_IN_PROTOCOL, path
        allowed = PROTOCOL_LIBRARIES | {"protocol"} | sys.stdlib_module_names
        assert used <= allowed, path


def test_rates_are_shown_as_rates_and_times_as_times() -> None:
    shown = generate.bounds()
    assert "| 1000/s | `--messages-per-s` |" in shown
    assert "| 200/s | `--frames-per-s` |" in shown
    assert "| 5 s | `--drain-s` |" in shown


def test_the_generated_parts_of_the_documents_are_current() -> None:
    assert generate.stale() == [], "run: python docs/generate.py"


def test_the_readme_has_the_whole_routing_table() -> None:
    readme = (ROOT / "README.md").read_text()
    for type in ROUTES:
        assert f"`{type}`" in readme
    assert Route.TARGET.value in readme


def test_the_agentcore_toolkit_accepts_the_committed_configuration() -> None:
    config = pytest.importorskip(
        "bedrock_agentcore_starter_toolkit.utils.runtime.config",
        reason="bedrock-agentcore-starter-toolkit is not installed",
    )
    loaded = config.load_config(ROOT / ".bedrock_agentcore.yaml").get_agent_config()
    assert loaded.entrypoint.endswith("relay.py")
    assert loaded.memory.mode == "NO_MEMORY"
    assert loaded.aws.account is None
    assert loaded.validate(for_local=True) == []


def test_the_committed_configuration_names_no_account_and_no_absolute_path() -> None:
    text = (ROOT / ".bedrock_agentcore.yaml").read_text()
    assert "arn:" not in text
    assert ": /" not in text
