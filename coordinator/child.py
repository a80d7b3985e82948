"""Child processes that never outlive their parent, and the entry through which they start.

The parent holds the only write end of the child's standard input. A line written there is a word to the child; the
end of the file means that the parent is gone, by whatever cause, SIGKILL included, and the child leaves. So no
process and no taken port is left behind on Linux and macOS alike, without process groups, pid files or polling.

What a child does is named as `module:function`; the function gets its arguments and a queue of the parent's words.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import IO

STOP_SECONDS = 4.0  # a child that has not ended by then is killed
FORCE_SECONDS = 3.0  # less, so that a stuck child ends itself first
LOG_TAIL = 2000  # bytes

Words = SimpleQueue[bytes]
Main = Callable[[list[str], Words], None]


class Child:
    """A child process as its parent sees it."""

    def __init__(self, main: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        """Start it.

        Args:
            main: What it does, as "module:function" (a `Main`).
            arguments: Passed on; visible to every user of the machine, so never a secret.
            environment: Added to this process's own.
            log: File that its output is appended to.

        Raises:
            OSError: The log cannot be opened, or no process started.
        """
        self._log = log
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "coordinator.child",
                    main,
                    *arguments,
                ],  # -P: not from the current folder
                env=os.environ | environment | {"PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends its children in order
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def runs(self) -> bool:
        """Tell whether the process is alive."""
        return self._process.poll() is None

    def tell(self, word: bytes) -> None:
        """Send one word; a child that is gone does not hear it."""
        with suppress(BrokenPipeError, ValueError):  # ValueError: the pipe was closed before
            self._input.write(word + b"\n")
            self._input.flush()

    def ask_to_end(self) -> None:
        """Close the pipe, and return at once: the child leaves by itself."""
        with suppress(BrokenPipeError):
            self._input.close()

    def end(self) -> None:
        """End the child and everything in its session, by force where asking does not help."""
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):  # nothing left, or a zombie (macOS)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """Return the end of the child's log."""
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
            return file.read().decode(errors="replace").strip()

    @property
    def _input(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise AssertionError("started with a pipe")
        return self._process.stdin


def _listen(words: Words) -> None:
    rest = b""
    # Not sys.stdin: a daemon thread inside its buffer's lock makes Python abort while it shuts down.
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            words.put(line)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FORCE_SECONDS)
    os._exit(1)


def _main(main: str, arguments: list[str]) -> None:
    words: Words = SimpleQueue()
    threading.Thread(target=_listen, args=(words,), daemon=True).start()
    module, _, name = main.partition(":")
    run: Main = getattr(import_module(module), name)
    run(arguments, words)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
