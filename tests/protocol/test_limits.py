"""The limits: defaults, bounds of the bounds, and the relations between them."""

from typing import Any

import attrs
import pytest

from protocol.limits import Limits

LEAST: dict[str, Any] = {
    "message_bytes_max": 1024,
    "presence_bytes_max": 1024,
    "nesting_max": 8,
    "number_digits_max": 20,
    "id_chars_max": 8,
    "agents_max": 1,
    "messages_per_s": 0.1,
    "messages_burst": 1,
    "frames_in_per_s": 1.0,
    "frames_in_burst": 1,
    "bytes_in_per_s": 1024.0,
    "bytes_in_burst": 1024,
    "crowd_bytes_per_s": 1024.0,
    "inbox_messages_max": 1,
    "inbox_bytes_max": 1024,
    "quantum_messages": 1,
    "quantum_bytes": 1024,
    "round_messages_max": 1,
    "round_bytes_max": 1024,
    "flush_gap_s": 0.0,
    "mailbox_messages_max": 1,
    "mailbox_bytes_max": 1024,
    "held_bytes_max": 0,
    "frames_per_s": 1.0,
    "frame_bytes_max": 1024,
    "peer_connections_max": 1,
    "announcements_per_s": 0.01,
    "announcements_burst": 1,
    "announcement_bytes": 1024,
    "lag_s": 0.01,
    "lag_told_every_s": 0.0,
    "open_commands_max": 0,
    "begun_turns_max": 1,
    "connections_max": 1,
    "meshes_max": 1,
    "visitors_max": 1,
    "unannounced_max": 1,
    "resume_s": 0.0,
    "history_bytes_max": 0,
    "recall_messages_max": 0,
    "recall_bytes_max": 0,
    "recall_s": 0.0,
    "wishes_max": 1,
    "wish_names_max": 1,
    "grant_connections_max": 1,
    "grant_grace_s": 0.0,
    "mesh_name_chars_max": 1,
    "head_bytes_max": 1024,
    "headers_max": 16,
    "body_bytes_max": 1024,
    "opening_within_s": 0.01,
    "announce_within_s": 0.01,
    "stale_after_s": 0.01,
    "reap_after_s": 0.02,
    "pong_keepalive_s": 0.01,
    "presence_refresh_s": 0.01,
    "rate_error_every_s": 0.0,
    "directory_bytes_max": 1024,
    "echo_within_s": 0.0,
    "echo_bytes_max": 1024,
    "refusal_log_every_s": 0.0,
    "close_within_s": 0.0,
    "drain_s": 0.0,
}
FIELDS = [pytest.param(field, id=field.name) for field in attrs.fields(Limits)]


def test_the_defaults_are_those_of_the_design() -> None:
    limits = Limits()
    assert limits.announce_within_s == 30.0
    assert limits.stale_after_s == 15.0
    assert limits.reap_after_s == 30.0
    assert limits.presence_refresh_s == 20.0
    assert limits.rate_error_every_s == 1.0
    assert limits.echo_within_s == 10.0
    assert limits.message_bytes_max == 1_048_576
    assert limits.messages_burst >= 600


def test_every_bound_may_be_at_its_least() -> None:
    assert attrs.asdict(Limits(**LEAST)) == LEAST


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_below_the_least_is_refused_by_name(field: "attrs.Attribute[Any]") -> None:
    step = 0.001 if isinstance(field.default, float) else 1
    with pytest.raises(ValueError, match=field.name):
        Limits(**{field.name: LEAST[field.name] - step})


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [-1, 2**53 + 2])
def test_a_value_out_of_all_bounds_is_refused_by_name(
    field: "attrs.Attribute[Any]", value: int
) -> None:
    with pytest.raises(ValueError, match=field.name):
        Limits(**{field.name: value})


@pytest.mark.parametrize("name", ["agents_max", "drain_s"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), "many", "", None, []], ids=repr)
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


def test_half_an_agent_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="agents_max"):
        Limits(agents_max=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_says_what_is_bounded_and_what_happens_beyond(
    field: "attrs.Attribute[Any]",
) -> None:
    assert set(field.metadata) == {"what", "beyond"}
    assert all(isinstance(words, str) and words for words in field.metadata.values())


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_has_the_type_of_the_default_and_a_duration_has_its_unit(
    field: "attrs.Attribute[Any]",
) -> None:
    default: Any = field.default
    is_float = isinstance(default, float)
    assert type(getattr(Limits(**{field.name: default}), field.name)) is type(default)
    assert is_float == field.name.endswith("_s")


@pytest.mark.parametrize(
    ("small", "large", "values"),
    [
        ("stale_after_s", "reap_after_s", {"stale_after_s": 30.0, "reap_after_s": 30.0}),
        ("presence_refresh_s", "reap_after_s", {"presence_refresh_s": 30.0}),
        (
            "presence_bytes_max",
            "message_bytes_max",
            {"presence_bytes_max": 4097, "message_bytes_max": 4096},
        ),
        (
            "message_bytes_max",
            "mailbox_bytes_max",
            {"message_bytes_max": 2**20, "mailbox_bytes_max": 2**20 - 1},
        ),
        (
            "quantum_messages",
            "round_messages_max",
            {"quantum_messages": 65, "round_messages_max": 64},
        ),
        (
            "quantum_bytes",
            "round_bytes_max",
            {"quantum_bytes": 2049, "round_bytes_max": 2048},
        ),
    ],
)
def test_a_relation_that_does_not_hold_is_refused_with_both_names(
    small: str, large: str, values: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=rf"{small} .* {large} "):
        Limits(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"stale_after_s": 29.9},
        {"presence_refresh_s": 29.9},
        {"presence_bytes_max": 2**20},
        {"message_bytes_max": 2**22},
        {"quantum_messages": 8192},
        {"quantum_bytes": 2**20},
    ],
    ids=str,
)
def test_a_relation_may_hold_by_the_least_margin(values: dict[str, Any]) -> None:
    Limits(**values)


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Limits().drain_s = 1.0  # type: ignore[misc]
