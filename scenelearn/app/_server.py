"""`Server`: a page that is being served."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from scenelearn._checks import check_integer
from scenelearn.finetune._runtime import handle_signals


@dataclass(frozen=True, slots=True)
class Server:
    """A page that is being served by this process. As a context manager, it closes itself.

    Attributes:
        url: the address to open in a browser.
        on_close: called once by `close`.
    """

    url: str
    on_close: Callable[[], None]

    def __repr__(self) -> str:
        return f"<Server: {self.url}>"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self) -> None:
        """Serve until Ctrl-C or SIGTERM, then close."""
        with suppress(KeyboardInterrupt), handle_signals():
            while True:
                time.sleep(3600)  # which Ctrl-C interrupts on Windows, too
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self.on_close()


def check_port(port: int | None) -> int | None:
    """Check that a port is one that servers may use; None stays None.

    Raises:
        ArgumentError: if it is something else.
    """
    advice = "None takes one that is free."
    return port if port is None else check_integer("port", port, low=1, high=65535, advice=advice)
