"""A run in TensorBoard: the numbers of `scalars` in a folder of its own, `NAME-DIGEST`, under the log directory.

Needs tensorboard (`wardround[tensorboard]`). Whoever follows the same job again writes all of it once more and tells
TensorBoard to forget what was there, so that nothing shows twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from client.errors import TrackingError
from client.job_story import SHORT
from client.notebook import scalars
from client.notebook.extras import needed
from client.notebook.figures import Figures

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_EVENTS = "events.out.tfevents.*"


class TensorBoardTracker:
    """Writes runs for TensorBoard."""

    def __init__(self, log_dir: str | Path) -> None:
        """Write nothing yet.

        Args:
            log_dir: The folder that TensorBoard is pointed at: `tensorboard --logdir LOG_DIR`.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        needed("tensorboard", "tensorboard", "runs are logged to TensorBoard")
        self._torch = needed("torch.utils.tensorboard", "notebook", "TensorBoard's files are written")
        self._folder = Path(log_dir)
        self._writer: SummaryWriter | None = None
        self._logged: set[tuple[str, int]] = set()

    def start(self, figures: Figures) -> None:
        """Open the run's folder."""
        folder = self._folder / f"{figures.name}-{figures.digest[:SHORT]}"
        again = any(folder.glob(_EVENTS))
        self._writer = self._torch.SummaryWriter(str(folder), purge_step=0 if again else None)
        self._logged.clear()

    def round(self, figures: Figures, number: int) -> None:
        """Write the numbers of a round that are not written yet."""
        if self._writer is None:
            raise TrackingError("a TensorBoardTracker was told of a round before it was told of the start")
        for scalar in scalars.of_round(figures, number):
            if (scalar.name, scalar.step) not in self._logged:
                self._logged.add((scalar.name, scalar.step))
                self._writer.add_scalar(scalar.name, scalar.value, scalar.step)
        self._writer.flush()

    def end(self, figures: Figures) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
