"""A training whose worker, and one whose driver, is killed mid-epoch: what differs in the end?

python -m benchmarks.killed [--images 24] [--epochs 4]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch

from benchmarks.environment import report
from benchmarks.train import make_corpus
from gazecore.model.backbone import load_backbone, make_spec
from tests.features import make_cache
from tests.processes import descendants, kill_tree, training_workers

MAX_DIFFERENCE = 1e-4


class Training:
    """`gazecore train` on a cache, by a command of its own."""

    def __init__(self, folder: Path, name: str, epochs: int) -> None:
        self.bundle = folder / name / "m.safetensors"
        self.training = folder / name / "m.training"
        self.command = [
            sys.executable, "-m", "jobs", "train", str(folder / "cache"), "--out", str(self.bundle),
            "--parts", "4", "--members", "1", "--training.epochs", str(epochs),
            "--training.batch-size", "2", "--checkpoint-steps", "2",
        ]  # fmt: skip

    def run(self) -> None:
        """To the end."""
        subprocess.run(self.command, check=True, stderr=subprocess.DEVNULL, stdout=sys.stderr)

    def kill(self, what: str) -> tuple[int, int]:
        """Run it, and kill its worker or all of it; the epoch and the step of the checkpoint that
        it goes on from."""
        process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL, stdout=sys.stderr)
        while not (self.training / "progress.parquet").exists() and process.poll() is None:
            time.sleep(0.05)
        # As soon as there is a checkpoint in the middle of an epoch.
        while not (at := self._position())[1] and process.poll() is None:
            time.sleep(0.02)
        if what == "worker":
            os.kill(training_workers(process.pid)[0], signal.SIGKILL)
            if process.wait():
                sys.exit("the training did not outlive its worker")
            return at
        for pid in [*descendants(process.pid), process.pid]:
            kill_tree(pid)
        process.wait()
        self.run()
        return at

    def weights(self) -> torch.Tensor:
        """All tensors of the bundle."""
        state = safetensors.torch.load_file(self.bundle)
        return torch.cat([state[name].double().flatten() for name in sorted(state)])

    def losses(self) -> torch.Tensor:
        """Of all epochs."""
        return torch.tensor(pq.read_table(self.training / "progress.parquet")["loss"].to_pylist())

    def _position(self) -> tuple[int, int]:
        found = [(0, 0)]
        for path in self.training.rglob("state.pt"):
            try:
                state = torch.load(path, weights_only=True)
            except (OSError, RuntimeError, EOFError):
                continue  # it has just been written, or deleted
            found.append((state["epoch"] + 1, state["position"]))
        return max(found)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = load_backbone(make_spec("vgg19-oxford"), device="cpu")
        make_cache(make_corpus(folder, arguments.images), backbone, f"{name}/cache")
        undisturbed = Training(folder, "undisturbed", arguments.epochs)
        undisturbed.run()
        found: dict[str, dict[str, float | tuple[int, int]]] = {}
        worst = 0.0
        for what in ("worker", "driver"):
            training = Training(folder, what, arguments.epochs)
            at = training.kill(what)
            difference = float((training.weights() - undisturbed.weights()).abs().max())
            losses = float((training.losses() - undisturbed.losses()).abs().max())
            worst = max(worst, difference)
            found[what] = {"epoch_and_step": at, "weights": difference, "losses": losses}
    report(
        "killed",
        largest_differences=found,
        gate={"limit": MAX_DIFFERENCE, "passed": worst <= MAX_DIFFERENCE},
    )
    sys.exit(0 if worst <= MAX_DIFFERENCE else 1)


if __name__ == "__main__":
    main()
