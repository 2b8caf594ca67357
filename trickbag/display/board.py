"""The table of a study under way: every arm and seed, running means, time left."""

from collections.abc import Iterable
from statistics import fmean

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

from trickbag.ground.events import CellDone
from trickbag.ground.text import duration, line


class Board(Progress):
    """Progress bars below a table of what is finished, once there is any."""

    def __init__(self, *columns: ProgressColumn, console: Console, transient: bool) -> None:
        self.cells: dict[str, dict[int, CellDone]] = {}
        self.last: CellDone | None = None
        super().__init__(*columns, console=console, transient=transient)

    def add(self, event: CellDone) -> None:
        """Take in a run that ended."""
        self.cells.setdefault(event.arm, {})[event.seed] = self.last = event

    def get_renderables(self) -> Iterable[RenderableType]:
        """The table, then the bars."""
        if self.cells:
            yield self.table()
        yield from super().get_renderables()

    def table(self) -> Table:
        """A row per arm, a column per seed."""
        seeds = sorted({seed for row in self.cells.values() for seed in row})
        table = Table("arm", *(f"seed {seed}" for seed in seeds), "mean", box=None, pad_edge=False)
        for arm, row in self.cells.items():
            shown = [entry(row[seed]) if seed in row else "" for seed in seeds]
            values = [event.accuracy for event in row.values() if event.accuracy is not None]
            table.add_row(Text(line(arm)), *shown, f"{100 * fmean(values):.2f}" if values else "")
        last = self.last
        left = f", about {duration(last.seconds_left)} left" if last and last.seconds_left else ""
        table.caption, table.caption_justify = f"{last.done} of {last.total} runs{left}" if last else "", "left"
        return table


def entry(event: CellDone) -> str:
    """An accuracy in percent, or that there is none."""
    return "failed" if event.accuracy is None else f"{100 * event.accuracy:.1f}" + ("!" if event.failure else "")
