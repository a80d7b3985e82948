"""Packages that only some installations have: imported when they are needed, asked for in one sentence if missing."""

from __future__ import annotations

import importlib
from typing import Any

from client.errors import MissingExtraError


def needed(module: str, extra: str, purpose: str) -> Any:
    """Return a module of an optional package.

    Args:
        module: Its dotted name.
        extra: The extra of this distribution that brings it.
        purpose: What it is needed for, as the beginning of the sentence: "pictures are drawn".

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingExtraError(f"{purpose} with {package}: pip install 'wardround[{extra}]'") from None
