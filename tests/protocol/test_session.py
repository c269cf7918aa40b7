"""One mesh, one session id: the same wherever it is computed."""

from typing import Any

import pytest

from protocol.session import session_id
from tests.vectors.files import read

CASES = read("session")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"][:30])
def test_the_session_is_that_of_the_shared_vectors(case: dict[str, Any]) -> None:
    id = session_id(**case["arguments"])
    assert id == case["returns"]
    assert 33 <= len(id) <= 256
    assert id.isascii()
    assert id.replace("-", "").isalnum()


def test_other_names_and_other_secrets_are_other_sessions() -> None:
    ids = {case["returns"] for case in CASES}
    assert len(ids) == len(CASES) - 1  # the same name, composed and decomposed
    assert session_id("caf\u00e9") == session_id("cafe\u0301")


@pytest.mark.parametrize(("mesh", "secret"), [("", ""), ("\ud83d", ""), ("a", "\udc00")])
def test_what_has_no_one_meaning_is_refused(mesh: str, secret: str) -> None:
    with pytest.raises(ValueError, match="mesh"):
        session_id(mesh, secret)
