"""Record work on a stream of the GPU once, and launch the whole of it again with one call: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pano4d.runtime.device import call, driver
from pano4d.runtime.errors import BackendError


class Graph:
    """Work that was recorded; it reads and writes where it did then.

    Args:
        executable: Handle of the executable graph; ``Graph.record`` makes it.
    """

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    @classmethod
    def record(cls, stream: int, enqueue: Callable[[], None]) -> Graph:
        """Record what a function enqueues; nothing of it runs.

        Args:
            stream: Handle of a stream that is not the default one and has nothing pending.
            enqueue: Enqueues the work on this stream, and neither waits nor takes memory. Errors it raises pass through.

        Returns:
            The graph; the memory that the work uses must outlive it.

        Raises:
            BackendError: The work cannot be recorded.
        """
        cu = driver()
        # Other threads may go on taking memory meanwhile.
        call(cu.cuStreamBeginCapture, stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            # A stream stays unusable until its capture has ended, with whatever code.
            code, *graph = cu.cuStreamEndCapture(stream)
            if int(code) == 0 and graph[0]:
                cu.cuGraphDestroy(graph[0])
            raise
        graph = call(cu.cuStreamEndCapture, stream)
        if not graph:
            raise BackendError("The GPU recorded nothing: run without a CUDA graph.")
        try:
            return cls(call(cu.cuGraphInstantiate, graph, 0))
        finally:
            call(cu.cuGraphDestroy, graph)

    def launch(self, stream: int) -> None:
        """Enqueue all of the work on a stream.

        Args:
            stream: Handle of any stream of the same context.

        Raises:
            BackendError: The driver refuses.
        """
        call(driver().cuGraphLaunch, self._executable, stream)

    def close(self) -> None:
        """Give the graph back; its launches must be over.

        Raises:
            BackendError: The driver refuses.
        """
        if self._executable is not None:
            call(driver().cuGraphExecDestroy, self._executable)
        self._executable = None
