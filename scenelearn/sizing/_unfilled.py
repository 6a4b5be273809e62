"""Keras models and variables that have shapes and no values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_values(keras: Any) -> Iterator[None]:
    """Inside, what Keras builds gets no values: a network in milliseconds, and no memory.

    Keras remembers such variables to fill them in later. These are never filled in, so its list
    is put back as it was.
    """
    from keras.src.backend.common import global_state

    key = "uninitialized_variables"
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(key, [] if before is None else before)
