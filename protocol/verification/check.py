"""The old place of the conformance kit, for one release: see protocol.verification.conformance."""

import warnings
from typing import Any

from protocol.verification import conformance


def __getattr__(name: str) -> Any:
    if name not in conformance.__all__:
        raise AttributeError(name)
    warnings.warn(f"import {name} from {conformance.__name__}", DeprecationWarning, stacklevel=2)
    return getattr(conformance, name)
