"""What people see while members are trained."""

from types import TracebackType

from rich.console import Console

from cluster.progress import ProgressReport
from gazecore.training.history import History
from gazecore.training.optimise import Epoch


class TrainingProgress:
    """Shows images a second, the time left and every epoch, and keeps the epochs; use as a context
    manager, and as a `training.members.Report`."""

    def __init__(
        self, stage: str, members: int, images: int, epochs: int, console: Console, history: History
    ) -> None:
        """Start.

        Args:
            stage: `pretraining` or `training`.
            members: how many are trained.
            images: in an epoch of a member, about.
            epochs: of a member, at most.
            console: where to show it.
            history: where epochs are kept; those that it has are not shown again.
        """
        self._stage, self._members, self._epochs = stage, members, epochs
        self._console, self._history = console, history
        self._done: dict[int, int] = {}
        self._bar = ProgressReport(stage, members * epochs * images, console)

    def __enter__(self) -> "TrainingProgress":
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if kind is None:
            self._history.draw()

    def __call__(self, member: int, news: Epoch | int) -> None:
        """See `training.members.Report`."""
        if isinstance(news, Epoch):
            self._on_epoch(member, news)
        else:
            self._done[member] = self._done.get(member, 0) + news
        self._bar.show(sum(self._done.values()), "", stage=self._stage)

    def _on_epoch(self, member: int, epoch: Epoch) -> None:
        self._done[member] = epoch.number * epoch.images
        if self._history.add(self._stage, member, epoch):
            self._console.print(
                f"{self._stage}  member {member}/{self._members}  "
                f"epoch {epoch.number}/{self._epochs}  loss {epoch.loss:.4f} nat  "
                f"information gain {epoch.information_gain:.4f} bit  "
                f"{epoch.images / epoch.seconds:.0f} images/s",
                soft_wrap=True,
            )
