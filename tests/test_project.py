"""The project itself: what its documents say, and its configuration for AgentCore."""

import re
import sys

import pytest

from tests import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import generate
import pages

import agi_diy_relay
from protocol.mesh.routing import ROUTES, Route


def test_rates_are_shown_as_rates_and_times_as_times() -> None:
    shown = generate.bounds()
    assert "| 1000/s | `--messages-per-s` |" in shown
    assert "| 200/s | `--frames-per-s` |" in shown
    assert "| 5 s | `--drain-s` |" in shown


def test_the_generated_parts_of_the_documents_are_current() -> None:
    assert generate.stale() == [], "run: python docs/generate.py"


@pytest.mark.parametrize("page", sorted(pages.sources().values()))
def test_every_document_is_in_the_navigation_of_the_site(page: str) -> None:
    pages.check_navigation(page)


def test_every_public_name_is_on_a_page_of_the_api() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = re.findall(r"^::: agi_diy_relay\.(\w+)$", text, re.MULTILINE)
    assert sorted([*shown, "__version__"]) == agi_diy_relay.__all__


def test_the_readme_has_the_whole_routing_table() -> None:
    readme = (ROOT / "README.md").read_text()
    for type in ROUTES:
        assert f"`{type}`" in readme
    assert Route.TARGET.value in readme


@pytest.mark.no_cover
def test_no_cover_ends_the_measuring_also_in_the_workers_of_ci() -> None:
    assert not type(sys.gettrace()).__module__.startswith("coverage")


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
