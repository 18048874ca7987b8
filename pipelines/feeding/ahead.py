"""Pictures on a GPU before their update begins: they are copied while the update before it is computed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from ...heads.contract import Batch
from .updates import Update


def sent_ahead(feed: Iterator[Update], device: torch.device) -> Iterator[Update]:
    """Yield the same updates; for CUDA each one's first micro-batch is on the device, or on its way, since the one before.

    The copies run on a stream of their own, from pinned memory. The other micro-batches of an update are copied by the
    engine, each before its forward, so that memory holds one more of them, not a whole update.
    """
    return one_ahead(feed, sender(device)) if device.type == "cuda" else feed


def one_ahead(feed: Iterator[Update], send: Callable[[Batch], Callable[[], Batch]]) -> Iterator[Update]:
    """Send each update's first micro-batch while the update before it is still to be done; `send` returns how to get it."""
    waiting: list[tuple[Update, Callable[[], Batch]]] = []
    for update in feed:
        waiting.append((update, send(update.micro_batches[0])))
        if len(waiting) > 1:
            yield _with_first(*waiting.pop(0))
    yield from (_with_first(*pair) for pair in waiting)


def _with_first(update: Update, sent: Callable[[], Batch]) -> Update:
    return replace(update, micro_batches=[sent(), *update.micro_batches[1:]])


def sender(device: torch.device) -> Callable[[Batch], Callable[[], Batch]]:
    """Return what copies a batch to the GPU on a stream of its own, and returns what waits for it."""
    stream = torch.cuda.Stream(device)

    def send(batch: Batch) -> Callable[[], Batch]:
        with torch.cuda.stream(stream):
            copied = batch.to(device)

        def arrived() -> Batch:
            now = torch.cuda.current_stream(device)
            now.wait_stream(stream)
            copied.each(lambda tensor: _used_on(tensor, now))
            return copied

        return arrived

    return send


def _used_on(tensor: torch.Tensor, stream: Any) -> torch.Tensor:
    """Tell the allocator that the tensor is used on this stream: its memory is not given away before."""
    if tensor.is_cuda:
        tensor.record_stream(stream)
    return tensor
