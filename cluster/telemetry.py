"""What Prometheus sees of a run, through Ray's agent on each node (docs/operations.md)."""

from ray.util.metrics import Counter, Gauge

from gazecore.shards.clock import PHASES, Times

FIGURES: dict[str, tuple[type[Counter] | type[Gauge], tuple[str, ...], str]] = {
    "gazecore_images": (
        Counter,
        ("status",),
        "Images worked on, by status (ok, failed); a shard that is done again counts again",
    ),
    "gazecore_failed_images": (Counter, ("error",), "Failed images of committed shards, by error"),
    "gazecore_shards": (Counter, (), "Shards committed"),
    "gazecore_stage_seconds": (
        Counter,
        ("stage",),
        f"Seconds that threads spent in a stage ({', '.join(PHASES)})",
    ),
    "gazecore_stage_room_seconds": (
        Counter,
        ("stage",),
        "What gazecore_stage_seconds would be with every thread of the stage busy",
    ),
    "gazecore_read_bytes": (Counter, (), "Bytes of images read from the storage"),
    "gazecore_images_ready": (
        Gauge,
        (),
        "Images of an actor that are read and wait for its network",
    ),
    "gazecore_shards_in_work": (Gauge, (), "Shards that an actor works on"),
    "gazecore_images_left": (Gauge, (), "Planned images that are not done yet"),
}
"""Name to kind, labels besides `run`, and meaning. Ray exports them as `exported` says."""


def exported(name: str) -> str:
    """The name that Prometheus knows a figure by."""
    return f"ray_{name}_total" if FIGURES[name][0] is Counter else f"ray_{name}"


class Telemetry:
    """The figures of one run in this process, which Ray's agent collects if there is one."""

    def __init__(self, run: str) -> None:
        """Args: run: URI of the run directory or feature cache, the label `run`."""
        self._run = run
        self._figures = {
            name: kind(name, meaning, ("run", *labels))
            for name, (kind, labels, meaning) in FIGURES.items()
        }

    def add(self, name: str, value: float, **labels: str) -> None:
        """Raise a counter."""
        if value > 0:
            self._figures[name].inc(value, {"run": self._run, **labels})

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._figures[name].set(value, {"run": self._run})

    def add_times(self, times: Times) -> None:
        """Raise the counters of stages and bytes."""
        for phase in PHASES:
            self.add("gazecore_stage_seconds", times.seconds[phase], stage=phase)
            self.add("gazecore_stage_room_seconds", times.room[phase], stage=phase)
        self.add("gazecore_read_bytes", times.bytes_read)
