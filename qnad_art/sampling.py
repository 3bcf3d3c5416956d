"""Seeded shot noise: generators that are copied and pickled with the model and can be frozen."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 18
"""Numbers that one thread draws at a time."""


class NoiseSource:
    """Standard normal draws from generators of its own (never torch's global one).

    Args:
        seed: any integer; ``None`` takes a fresh one from the operating system, kept in ``seed``.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.reseed(seed)

    def reseed(self, seed: int | None = None) -> None:
        """Start again from ``seed``."""
        self.seed = secrets.randbits(63) if seed is None else seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._frozen: dict[torch.device, Tensor] | None = None
        self._depth = 0

    def normal_like(self, reference: Tensor) -> Tensor:
        """Independent N(0, 1) of the shape, type and device of ``reference``."""
        generator = self._generator(reference.device)
        result = torch.empty_like(
            reference, requires_grad=False, memory_format=torch.contiguous_format
        )
        if result.is_cuda or result.numel() < 2 * CHUNK:
            return result.normal_(generator=generator)
        # torch fills on one core only; chunks of fixed size give the same draw on any number.
        chunks = result.view(-1).split(CHUNK)
        seeds = torch.randint(2**63 - 1, (len(chunks),), generator=generator).tolist()

        def fill(chunk: Tensor, seed: int) -> None:
            chunk.normal_(generator=torch.Generator().manual_seed(seed))

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, chunks, seeds))
        return result

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Around a forward pass: a frozen draw winds the generators back at its start.

        Passes may nest (an average over draws is one pass of several): the outermost counts.
        """
        if self._depth == 0 and self._frozen is not None:
            for device, state in self._frozen.items():
                self._generators[device].set_state(state)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within the context every forward pass uses the same draw (common random numbers)."""
        if self._frozen is not None:  # nested: the outer context keeps its draw
            yield
            return
        self._frozen = {device: g.get_state() for device, g in self._generators.items()}
        try:
            yield
        finally:
            self._frozen = None

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            generator = torch.Generator(device).manual_seed(self.seed)
            self._generators[device] = generator
            if self._frozen is not None:
                self._frozen[device] = generator.get_state()
        return self._generators[device]

    def __getstate__(self) -> dict[str, Any]:
        states = {str(device): g.get_state() for device, g in self._generators.items()}
        return {"seed": self.seed, "states": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.reseed(state["seed"])
        for name, generator_state in state["states"].items():
            device = torch.device(name)
            if device.type != "cuda" or torch.cuda.is_available():
                self._generator(device).set_state(generator_state)
