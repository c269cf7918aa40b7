"""One mesh, one session id: the same wherever it is computed."""

import json
from pathlib import Path

import pytest

from protocol.session import session_id

VECTORS = json.loads((Path(__file__).parent / "session_vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: repr(vector["mesh"])[:20])
def test_the_session_is_that_of_the_shared_vectors(vector: dict[str, str]) -> None:
    id = session_id(vector["mesh"], vector["secret"])
    assert id == vector["session"]
    assert 33 <= len(id) <= 256
    assert id.isascii()
    assert id.replace("-", "").isalnum()


def test_other_names_and_other_secrets_are_other_sessions() -> None:
    ids = {vector["session"] for vector in VECTORS}
    assert len(ids) == len(VECTORS) - 1  # the same name, composed and decomposed
    assert session_id("caf\u00e9") == session_id("cafe\u0301")


@pytest.mark.parametrize(("mesh", "secret"), [("", ""), ("\ud83d", ""), ("a", "\udc00")])
def test_what_has_no_one_meaning_is_refused(mesh: str, secret: str) -> None:
    with pytest.raises(ValueError, match="mesh"):
        session_id(mesh, secret)
