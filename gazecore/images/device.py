"""JPEGs decoded and resized on a GPU (nvJPEG), for machines with few cores to a GPU.

Only what a GPU surely reads as the processor does is its own: what it refuses, or what has no end,
is left to the processor, which knows what is wrong.
"""

import contextlib
import queue
import threading
import warnings
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.io import ImageReadMode, decode_jpeg

# It will go to TorchCodec one day.
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities")

_END = b"\xff\xd9"
"""What a whole JPEG ends with, zeros after it aside."""


@dataclass(frozen=True)
class _Wanted:
    data: bytes
    size: tuple[int, int]
    answer: Future[np.ndarray | None]


class DeviceDecoder:
    """Decodes for many threads at once; those that wait are served together.

    Resized are pixels in float32, which differ from the processor's by a level where they lie near
    the middle of two.
    """

    def __init__(self, device: str = "cuda", most: int = 16) -> None:
        """`most` JPEGs are decoded at once."""
        self._device, self._most = device, most
        # Not the network's: what the caching allocator takes back from a batch whose kernels are
        # still to run, it gives to those of the same stream alone. And nobody waits for the other.
        self._stream = None if device == "cpu" else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._wanted: queue.SimpleQueue[_Wanted | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="gazecore-device", daemon=True).start()

    def __call__(self, data: bytes, height: int, width: int) -> np.ndarray | None:
        """RGB pixels uint8 (height, width, 3) of a JPEG, not turned; None: it is left to the
        processor."""
        if not data.rstrip(b"\0").endswith(_END):
            return None
        wanted = _Wanted(data, (height, width), Future())
        self._wanted.put(wanted)
        return wanted.answer.result()

    def close(self) -> None:
        """End the thread, once it has served those that wait."""
        self._wanted.put(None)

    def _serve(self) -> None:
        while wanted := self._wanted.get():
            together = [wanted]
            while len(together) < self._most:
                try:
                    another = self._wanted.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    self._wanted.put(None)
                    break
                together.append(another)
            self._answer(together)

    def _answer(self, together: list[_Wanted]) -> None:
        try:
            found = self._decoded(together)
        except (RuntimeError, ValueError):  # nvJPEG's, and a lack of the device's memory
            if len(together) == 1:
                together[0].answer.set_result(None)
            else:  # one of them cannot be read
                for wanted in together:
                    self._answer([wanted])
        except BaseException as error:  # so that nobody waits for ever
            for wanted in together:
                wanted.answer.set_exception(error)
        else:
            for wanted, pixels in zip(together, found, strict=True):
                wanted.answer.set_result(pixels)

    def _decoded(self, together: list[_Wanted]) -> list[np.ndarray]:
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            if self._stream:
                # nvJPEG writes on a stream of its own, where a failed try may have left work.
                self._stream.synchronize()
            files = [torch.frombuffer(bytearray(w.data), dtype=torch.uint8) for w in together]
            found = decode_jpeg(files, mode=ImageReadMode.RGB, device=self._device)
            shown = [self._resized(p, w.size) for p, w in zip(found, together, strict=True)]
            return [pixels.cpu().numpy() for pixels in shown]

    def _resized(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(3, h, w) uint8 to (*size, 3), bicubic and antialiased."""
        found = F.interpolate(pixels[None].float(), size, mode="bicubic", antialias=True)
        return found[0].round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous()
