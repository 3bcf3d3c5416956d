"""Seeded shot noise: generators that are copied and pickled with the model and can be frozen.

Threads that run the same model share its generators, which serve them in the order in which they
ask. For draws that every thread can repeat, give each thread a copy of the model and
:meth:`NoiseSource.reseed` it. In several processes, a source with a seed draws the same everywhere
(reseed each worker for different draws), and a source without a seed never repeats a draw.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qnad_art.errors import InvalidInputError

PIECE = 1 << 18
"""How many numbers are drawn at a time."""
OUTPUT_PIECE = 1 << 17
"""How many numbers of a layer's output are drawn and processed at a time on a CPU, at most."""
FEW = 1 << 13
"""Below this, numbers outside a pass are drawn one by one, because a new seed would take longer."""
_ALL = slice(None)


class NoiseSource:
    """Standard normal draws from its own generators (never torch's global one).

    Args:
        seed: an integer from -2⁶³ to 2⁶⁴ - 1. ``None`` takes a fresh one from the operating system
            and keeps it in ``seed``; every process that gets the source by a fork or a pickle takes
            another one.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.reseed(seed)

    def reseed(self, seed: int | None = None) -> None:
        """Start again from ``seed``. In :meth:`frozen`, every pass then has its first draw."""
        if seed is not None and not -(2**63) <= seed < 2**64:
            raise InvalidInputError(f"seed is {seed}; it must lie between -2**63 and 2**64 - 1.")
        frozen = getattr(self, "_frozen", None)
        self._fresh_in = os.getpid() if seed is None else None
        self.seed = secrets.randbits(63) if seed is None else seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._frozen: dict[torch.device, Tensor] | None = None if frozen is None else {}
        self._pass = _Pass()

    def normal_like(self, reference: Tensor) -> Tensor:
        """Independent N(0, 1) of the shape, type and device of ``reference``."""
        if reference.is_cuda:
            result = torch.empty_like(
                reference, requires_grad=False, memory_format=torch.contiguous_format
            )
            return result.normal_(generator=self._generator(reference.device))
        sizes = [
            min(PIECE, reference.numel() - start) for start in range(0, reference.numel(), PIECE)
        ]
        parts = [draw.flatten() for draw in self.draws([torch.Size([size]) for size in sizes])]
        result = torch.cat(parts) if parts else torch.empty(0)
        return result.view(reference.shape).to(reference.dtype)

    def output_like(self, reference: Tensor) -> Tensor:
        """N(0, 1) for a layer's output: the draws for its :func:`pieces`, one after another."""
        if reference.is_cuda:
            return self.normal_like(reference)
        shapes = [at(reference, place).shape for place in pieces(reference)]
        return torch.cat(list(self.draws(shapes))).to(reference.dtype)

    def draws(self, shapes: Sequence[torch.Size]) -> Iterator[Tensor]:
        """Independent N(0, 1), float32 on the CPU, one tensor of each shape.

        They are quantiles: 2¹⁶ equally probable values up to 4.3 standard deviations, whose
        variance is 1 within 1e-7. Drawing bits and looking them up takes half the time of normal
        numbers. Several tensors are drawn by all cores at once, each from its own seed, so that the
        number of cores does not matter.
        """
        counts = [shape.numel() for shape in shapes]
        current = self._pass
        if current.depth == 0 and sum(counts) < FEW:
            generator = self._generator(torch.device("cpu"))
            yield from (torch.empty(shape).normal_(generator=generator) for shape in shapes)
            return
        stream = current.stream
        if stream is None:
            generator = self._generator(torch.device("cpu"))
            stream = np.random.SFC64(int(torch.randint(2**63 - 1, (), generator=generator)))
        if current.depth:
            current.stream = stream
        streams = [stream]
        if len(shapes) != 1:
            streams = [np.random.SFC64(int(seed)) for seed in stream.random_raw(len(shapes))]
        table, workers = _normal_table(), min(torch.get_num_threads(), len(shapes))
        with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
            drawn = (
                map(_bits, streams, counts) if pool is None else pool.map(_bits, streams, counts)
            )
            for shape, bits in zip(shapes, drawn, strict=True):
                yield table.index_select(0, bits).view(shape)

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Context of a forward pass, which starts from the same states if the draw is frozen.

        In nested passes (an average over draws contains several), only the outermost one counts.
        Every thread has its own passes.
        """
        current = self._pass
        outermost = current.depth == 0
        if outermost and self._frozen is None and self._fresh_in not in (None, os.getpid()):
            self.reseed()  # The present draws are those of the parent process.
            current = self._pass
        if outermost:
            current.states, current.generators = self._frozen, {}
        shared = self._generators
        around, current.stream = current.stream, None
        current.depth += 1
        try:
            yield
        finally:
            current.depth -= 1
            current.stream = around
            if outermost and current.states is not None:
                for device, generator in current.generators.items():
                    shared[device].set_state(generator.get_state())
                current.states = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Context in which every forward pass uses the same draw (common random numbers)."""
        if self._frozen is not None:  # In a nested context, the draw of the outer one remains.
            yield
            return
        self._frozen = {device: g.get_state() for device, g in self._generators.items()}
        try:
            yield
        finally:
            self._frozen = None

    def _generator(self, device: torch.device) -> torch.Generator:
        shared = self._generators.get(device)
        if shared is None:  # If several threads come here at once, one of them wins.
            fresh = torch.Generator(device).manual_seed(self.seed + (device.index or 0))
            shared = self._generators.setdefault(device, fresh)
        states, own = self._pass.states, self._pass.generators
        if states is None:
            _forbid_in_backward()
            return shared
        if device not in own:
            own[device] = torch.Generator(device)
            own[device].set_state(states.setdefault(device, shared.get_state()))
        return own[device]

    def __getstate__(self) -> dict[str, Any]:
        states = {str(device): g.get_state() for device, g in self._generators.items()}
        return {"seed": self.seed, "states": states, "fresh_in": self._fresh_in}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.reseed(state["seed"])
        self._fresh_in = state["fresh_in"]
        for name, generator_state in state["states"].items():
            device = torch.device(name)
            if device.type != "cuda" or torch.cuda.is_available():
                self._generator(device).set_state(generator_state)


def pieces(output: Tensor) -> list[slice]:
    """Divide a batch into about equal ranges of :data:`OUTPUT_PIECE` numbers, or of one image."""
    count, wanted = output.shape[0], -(-output.numel() // OUTPUT_PIECE)
    if wanted <= 1 or output.is_cuda:
        return [_ALL]
    step = -(-count // wanted)
    return [slice(start, start + step) for start in range(0, count, step)]


def at(values: Tensor, place: slice) -> Tensor:
    """``values[place]``, without the cost of a view if ``place`` is the whole batch."""
    return values if place == _ALL else values[place]


class _Pass(threading.local):
    """The forward pass of a thread; with a frozen draw, it has its own generators."""

    def __init__(self) -> None:
        self.depth = 0
        self.states: dict[torch.device, Tensor] | None = None
        self.generators: dict[torch.device, torch.Generator] = {}
        self.stream: np.random.SFC64 | None = None
        """Source of all draws of the pass on the CPU; a seed for each would take longer."""


def _forbid_in_backward() -> None:
    """Raise in a backward pass, where the noise has moved on since the forward pass.

    Activation checkpointing repeats forward passes there. Their gradients would be those of another
    draw than the output's.
    """
    if torch._C._current_graph_task_id() != -1:
        raise InvalidInputError(
            "Shot noise was requested in a backward pass, as activation checkpointing does: the "
            "gradients would belong to another draw. Do without checkpointing, or set shots=None."
        )


def _bits(stream: np.random.SFC64, count: int) -> Tensor:
    """``count`` random 16-bit numbers, as indices."""
    words = stream.random_raw(-(-count // 4))
    return torch.from_numpy(words.view(np.uint16)[:count]).to(torch.int32)


@cache
def _normal_table() -> Tensor:
    """2¹⁶ quantiles of N(0, 1) in the middle of as many equal parts, scaled to variance one."""
    with torch.inference_mode(False):  # Its tensors could not be used for gradients later.
        middles = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
        table = torch.special.ndtri(middles)
        scaled: Tensor = table / table.square().mean().sqrt()
        return scaled.float()
