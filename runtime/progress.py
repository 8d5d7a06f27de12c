"""Show how far the stages of a run are, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stage_bars(quiet: bool = False) -> Iterator[Callable[[str, int, int], None] | None]:
    """Draw one progress bar per stage on stderr.

    Args:
        quiet: Draw nothing.

    Yields:
        A function to call with stage, done, total; what follows ": " in the stage is shown beside its name. None where
        stderr is no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, int] = {}

        def advance(stage: str, done: int, total: int) -> None:
            name, _, note = stage.partition(": ")
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            task = bars.tasks[tasks[name]]
            # In a batch every scene goes through the same stages again.
            if done < task.completed:
                bars.reset(task.id)
            bars.update(task.id, completed=done, total=total, description=f"{name} {note}".rstrip())

        yield advance
