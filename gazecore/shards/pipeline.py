"""From a shard's images to rows: fetch, decode, compute, finish.

Fetching and decoding run ahead in threads, the network runs in the caller's thread, and what is
made of its output follows in threads, so that the network does not wait.
"""

import contextlib
import contextvars
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic

import numpy as np
import pyarrow as pa

from gazecore.cores import cores
from gazecore.errors import (
    AccessDenied,
    Archived,
    Crashed,
    ImageError,
    KeysRefused,
    NotFound,
    StorageError,
    StorageUnavailable,
    TooLarge,
    one_line,
)
from gazecore.geometry import parts
from gazecore.images.decode import NetworkInput, to_network
from gazecore.images.read import Reader
from gazecore.memory import ran_out, share_arenas
from gazecore.shards.clock import Clock
from gazecore.shards.plan import KEPT
from gazecore.shards.stage import Computed, ReadingConfig, Row, Stage, failed_row

if TYPE_CHECKING:
    from gazecore.images.device import DeviceDecoder

NoInput = ImageError | StorageUnavailable
"""Why there is nothing for the network to see."""

MAX_UNANSWERED = 8
"""Images of a shard that `fail_unanswered` gives up, however few others there are."""


MAX_FETCHED = 2**30
"""Bytes of images that are fetched and not decoded yet, together."""


class _Room:
    """So many bytes, for those that hold some at the same time."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until there is room; what is larger than all of it is held alone."""
        size = min(size, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


class Pipeline(Generic[Computed]):
    """A stage with the threads that feed it. Several shards may be processed at once from several
    threads; the network serves one of them at a time.

    Attributes:
        clock: where the time goes.
    """

    def __init__(
        self,
        stage: Stage[Computed],
        reading: ReadingConfig,
        threads: int | None = None,
        on_gpu: bool = False,
    ) -> None:
        """`threads` are this process's share of the machine's cores; None: all of them."""
        self._stage = stage
        self._reading = reading
        finishers = cores(threads)
        decoders = reading.decoders or (finishers if on_gpu else max(1, finishers // 2))
        self._fetchers = reading.fetchers or (max(16, min(128, 8 * finishers)) if on_gpu else 16)
        self._room = _Room(MAX_FETCHED)
        self._device: DeviceDecoder | None = None
        if on_gpu and reading.decode == "gpu":
            from gazecore.images import device

            self._device = device.DeviceDecoder()
        self.clock = Clock()
        # Those that wait for the device count as decoding.
        decoding = self._fetchers if self._device else decoders
        self.clock.set_lanes(fetch=self._fetchers, decode=decoding, finish=finishers)
        share_arenas()
        self._decoding = threading.Semaphore(decoders)
        self._computing = threading.Lock()
        self._readers = ThreadPoolExecutor(self._fetchers, "gazecore-read")
        self._finishers = ThreadPoolExecutor(finishers, "gazecore-finish")

    def process(
        self,
        images: pa.Table,
        *,
        crashed: frozenset[str] = frozenset(),
        last_try: bool = False,
        on_image: Callable[[bool], None] = lambda ok: None,
    ) -> tuple[list[Row], list[Row]]:
        """Process the images of a shard.

        Args:
            images: rows of the plan: image_id, uri, size, version, and `kept` if they have it.
            crashed: images that are known to end the process; they are not touched.
            last_try: the shard is not tried again if it fails now; see `fail_unanswered`.
            on_image: is called with ok or not as each image is finished.

        Returns:
            An outcome for every image, and a result for each that ended well, in the order given.

        Raises:
            StorageUnavailable: the storage does not answer for an image; where that may become a
                failed row, for more images than it answers for. It says how many it answered for.
        """
        names = {"image_id", "uri", "size", "version", KEPT.name}.intersection(images.column_names)
        rows = images.select(sorted(names)).to_pylist()
        may_fail = last_try and self._reading.fail_unanswered
        futures: list[Future[tuple[Row, Row | None]]] = [Future() for _ in rows]
        unanswered = answered = 0
        telling = threading.Lock()
        answers: list[Row] = []

        def tell(ok: bool) -> None:
            with telling:
                on_image(ok)

        reader = Reader(rows, self._reading.limits)
        for indices, inputs in self._batches(self._read_ahead(rows, reader, crashed, answers)):
            if isinstance(inputs, StorageUnavailable):
                unanswered += 1
                is_hopeless = unanswered > max(MAX_UNANSWERED, answered)
                if is_hopeless or not may_fail or isinstance(inputs, KeysRefused):
                    inputs.answered = len(answers)
                    raise inputs
                inputs = StorageError(one_line(inputs))
            else:
                answered += len(indices)
            if isinstance(inputs, ImageError):
                futures[indices[0]].set_result((failed_row(rows[indices[0]], inputs), None))
                tell(False)
                continue
            found = self._compute(inputs, self._stage.batch_size(*inputs[0].pixels.shape[:2]))
            for index, image, (computed, position) in zip(indices, inputs, found, strict=True):
                futures[index] = self._finishers.submit(
                    self._finish, rows[index], image, computed, position, tell
                )
        reader.close()
        results = [future.result() for future in futures]
        return [outcome for outcome, _ in results], [r for _, r in results if r is not None]

    def close(self) -> None:
        """End the threads."""
        self._readers.shutdown(cancel_futures=True)
        self._finishers.shutdown(cancel_futures=True)
        if self._device:
            self._device.close()

    def _read_ahead(
        self, rows: list[Row], reader: Reader, crashed: frozenset[str], answers: list[Row]
    ) -> Iterator[tuple[int, NetworkInput | NoInput]]:
        """What the network is to see, in order; at most two images per fetcher are held.

        Rows that the storage answered for are added to `answers`, as they come.
        """
        waiting: deque[tuple[int, Future[NetworkInput]]] = deque()
        given_up = threading.Event()
        upcoming = iter(enumerate(rows))
        try:
            while True:
                while len(waiting) < 2 * self._fetchers:
                    index, row = next(upcoming, (-1, None))
                    if row is None:
                        break
                    # In this thread's context, so that what is logged there names the shard.
                    run = contextvars.copy_context().run
                    fetch = functools.partial(reader.read, index, given_up)
                    future = self._readers.submit(run, self._read, row, fetch, crashed, answers)
                    future.add_done_callback(lambda _: self.clock.count_ready(1))
                    waiting.append((index, future))
                if not waiting:
                    return
                index, future = waiting.popleft()
                found: NetworkInput | NoInput
                try:
                    found = future.result()
                except (ImageError, StorageUnavailable) as error:
                    found = error
                finally:
                    self.clock.count_ready(-1)
                yield index, found
        finally:
            given_up.set()
            for _, future in waiting:
                future.cancel()
                self.clock.count_ready(-1)

    def _read(
        self, row: Row, fetch: Callable[[], bytes], crashed: frozenset[str], answers: list[Row]
    ) -> NetworkInput:
        if row["image_id"] in crashed:
            raise Crashed("the process that worked on this image died each time it was tried")
        reading = self._reading
        with self._room.hold(row["size"] or 0):
            with self.clock.phase("fetch"):
                try:
                    data = fetch()
                except (NotFound, AccessDenied, Archived, StorageError):
                    answers.append(row)
                    raise
            answers.append(row)
            self.clock.count_bytes(len(data))
            device = self._on_device if self._device else None
            with self._decoding, self.clock.phase("decode"):
                return to_network(data, reading.display_size, reading.limits, device)

    def _on_device(self, data: bytes, height: int, width: int) -> np.ndarray | None:
        """Others decode while this waits: the device serves those together that do."""
        assert self._device is not None
        self._decoding.release()
        try:
            return self._device(data, height, width)
        finally:
            self._decoding.acquire()

    def _compute(
        self, images: list[NetworkInput], most: int
    ) -> Iterator[tuple[Computed | TooLarge, int]]:
        """What is computed of each image, and its position there.

        Where memory runs out, half as many are computed at once, and so on down to single ones:
        only of an image that does not fit alone nothing is computed.
        """
        for part in (images[batch] for batch in parts(len(images), most)):
            fits = True
            try:
                with self._computing, self.clock.phase("compute"):
                    computed = self._stage.compute(np.stack([i.pixels for i in part]))
            except Exception as error:
                if not ran_out(error):
                    raise
                fits = False
            # Not in the handler: what the network held is free once the error is gone.
            if fits:
                yield from ((computed, position) for position in range(len(part)))
            elif len(part) > 1:
                yield from self._compute(part, len(part) // 2)
            else:
                yield TooLarge("its network input does not fit in the device's memory"), 0

    def _finish(
        self,
        row: Row,
        image: NetworkInput,
        computed: Computed | TooLarge,
        position: int,
        tell: Callable[[bool], None],
    ) -> tuple[Row, Row | None]:
        try:
            if isinstance(computed, TooLarge):
                raise computed
            with self.clock.phase("finish"):
                finished = self._stage.finish(row, image, computed, position)
        except Exception as error:
            if ran_out(error):
                error = TooLarge("its statistics need more memory than there is")
            if not isinstance(error, ImageError):
                raise
            finished = failed_row(row, error), None
        tell(finished[0]["status"] == "ok")
        return finished

    def _batches(
        self, inputs: Iterable[tuple[int, NetworkInput | NoInput]]
    ) -> Iterator[tuple[list[int], list[NetworkInput] | NoInput]]:
        """Images of one size together, as many as the network takes at once."""
        held: dict[tuple[int, ...], list[tuple[int, NetworkInput]]] = {}
        for index, image in inputs:
            if not isinstance(image, NetworkInput):
                yield [index], image
                continue
            group = held.setdefault(image.pixels.shape, [])
            group.append((index, image))
            if len(group) == self._stage.batch_size(*image.pixels.shape[:2]):
                del held[image.pixels.shape]
                yield [i for i, _ in group], [im for _, im in group]
        for group in held.values():
            yield [i for i, _ in group], [im for _, im in group]
