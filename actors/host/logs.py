"""Logs: one line per event, readable on a terminal and JSON elsewhere."""

import logging
import sys

import structlog


def configure_logging(level: str) -> None:
    """Write all log records to stderr from now on, also those of uvicorn and of the SDK.

    One line per record: readable on a terminal, JSON elsewhere. `level` is a name such as `info`.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    is_terminal = sys.stderr.isatty()
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Its lines below this level hold query strings, and those hold credentials.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
