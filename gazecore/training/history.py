"""The epochs of a training as a table and as a picture."""

import io

import pyarrow as pa
from matplotlib.figure import Figure

from gazecore.storage import Location
from gazecore.tables import publish_table
from gazecore.training.optimise import Epoch

PROGRESS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("member", pa.int32(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("information_gain", pa.float64(), nullable=False),
        pa.field("images", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""A row per epoch of each member; see `trainer.Epoch`."""


class History:
    """What is in DIRECTORY/progress.parquet and drawn in DIRECTORY/curves.png."""

    def __init__(self, directory: Location) -> None:
        """Go on with what is there."""
        self._directory = directory
        self._rows: dict[tuple[str, int, int], dict[str, object]] = {}
        if (directory / "progress.parquet").exists():
            for row in (directory / "progress.parquet").read_table().to_pylist():
                self._rows[row["stage"], row["member"], row["epoch"]] = row

    def add(self, stage: str, member: int, epoch: Epoch) -> bool:
        """Keep an epoch; False if it was there already, as after a restart."""
        key = (stage, member, epoch.number)
        if key in self._rows:
            return False
        self._rows[key] = {
            "stage": stage,
            "member": member,
            "epoch": epoch.number,
            "loss": epoch.loss,
            "information_gain": epoch.information_gain,
            "images": epoch.images,
            "seconds": epoch.seconds,
        }
        publish_table(self._directory / "progress.parquet", self.table())
        return True

    def table(self) -> pa.Table:
        """All epochs, schema `PROGRESS`."""
        return pa.Table.from_pylist([self._rows[key] for key in sorted(self._rows)], PROGRESS)

    def draw(self) -> None:
        """Write the picture: loss and held-out information gain of every member."""
        stages = sorted({stage for stage, _, _ in self._rows})
        figure = Figure(figsize=(9, 3.4 * max(1, len(stages))), layout="constrained")
        axes = figure.subplots(max(1, len(stages)), 2, squeeze=False)
        for (left, right), stage in zip(axes, stages, strict=False):
            for member in sorted({m for s, m, _ in self._rows if s == stage}):
                rows = [self._rows[key] for key in sorted(self._rows) if key[:2] == (stage, member)]
                numbers = [row["epoch"] for row in rows]
                for axis, name in ((left, "loss"), (right, "information_gain")):
                    line = axis.plot(numbers, [row[name] for row in rows], marker=".", alpha=0.7)
                    line[0].set_label(f"member {member}")
            left.set(title=f"{stage}: training", xlabel="epoch", ylabel="loss, nats per fixation")
            right.set(
                title=f"{stage}: held out",
                xlabel="epoch",
                ylabel="information gain, bits per fixation",
            )
            for axis in (left, right):
                axis.xaxis.get_major_locator().set_params(integer=True)
                axis.spines[["top", "right"]].set_visible(False)
            if len(left.lines) <= 10:
                right.legend(frameon=False, fontsize="small", bbox_to_anchor=(1, 1))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        (self._directory / "curves.png").publish(buffer.getvalue())
