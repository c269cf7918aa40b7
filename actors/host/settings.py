"""What can be set, by option or environment variable."""

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from protocol.limits import Limits


@attrs.frozen(kw_only=True)
class Settings:
    """What can be set, by option or environment variable. See `python relay.py --help`."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8080)
    allowed_origins: tuple[str, ...] = ("localhost", "https://agi.diy")
    strict: bool = False
    pace: str = attrs.field(default="auto")
    log_level: str = "info"
    limits: Limits = Limits()

    @port.validator
    def _check_port(self, _: object, value: int) -> None:
        if not 0 <= value <= 65535:
            raise ValueError(f"port must be between 0 and 65535, got {value}")

    @pace.validator
    def _check_pace(self, _: object, value: str) -> None:
        if value not in ("auto", "on", "off"):
            raise ValueError(f"pace must be auto, on or off, got {value!r}")


def default_host(environ: Mapping[str, str]) -> str:
    """All interfaces in a container, as AgentCore's contract asks; elsewhere only this machine.

    Source: `BedrockAgentCoreApp.run`, which tells containers by the same two signs.
    """
    in_container = os.path.exists("/.dockerenv") or bool(environ.get("DOCKER_CONTAINER"))
    return "0.0.0.0" if in_container else "127.0.0.1"


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Options first, then environment variables, then defaults. A bad one ends the program."""
    parser = argparse.ArgumentParser(
        prog="relay.py",
        description="WebSocket relay for agent meshes.",
        epilog="Every option is also an environment variable: --drain-s is RELAY_DRAIN_S. "
        "HOST and PORT are honoured too.",
    )

    def option(name: str, default: object, help: str, **kwargs: Any) -> None:
        variable = f"RELAY_{name.upper()}"
        value = environ.get(variable, default)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, default=value, help=f"{help} (default: {default})", **kwargs)

    option("host", environ.get("HOST") or default_host(environ), "address to listen on")
    option("port", environ.get("PORT") or 8080, "port to listen on; 0 takes a free one")
    option(
        "allowed_origins",
        ",".join(Settings().allowed_origins),
        "origins of pages that may connect, by commas; `localhost` stands for this machine at any "
        "port, `*` for all; programs without an Origin always may",
    )
    option("log_level", "info", "debug, info, warning or error")
    option(
        "pace",
        "auto",
        "frames no faster and no larger than AgentCore's edge allows: on, off, or for connections "
        "that come through it",
    )
    option("strict", "false", "true: refuse message types outside the vocabulary")
    for field in attrs.fields(Limits):
        option(field.name, field.default, f"{field.metadata['what']}", metavar="N")

    values = vars(parser.parse_args(arguments))
    try:
        port = int(_number("port", values.pop("port"), int))
        bounds: dict[str, Any] = {
            field.name: _number(field.name, values.pop(field.name), type(field.default))
            for field in attrs.fields(Limits)
        }
        limits = Limits(**bounds)
        origins = tuple(filter(None, (o.strip() for o in values.pop("allowed_origins").split(","))))
        strict = _boolean("strict", values.pop("strict"))
        level = values["log_level"]
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError(f"log_level must be debug, info, warning or error, got {level!r}")
        return Settings(port=port, limits=limits, allowed_origins=origins, strict=strict, **values)
    except ValueError as error:
        parser.exit(2, f"relay.py: bad setting: {error}\n")


def _number(name: str, value: str | float, kind: type) -> int | float:
    try:
        return int(value) if kind is int else float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {value!r}") from None


def _boolean(name: str, value: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    except KeyError:
        raise ValueError(f"{name} must be true or false, got {value!r}") from None
