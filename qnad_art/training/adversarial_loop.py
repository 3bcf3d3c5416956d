"""The loop of the adversarial optimisation, and its checkpoints.

Every step makes adversarial examples against the present network and then updates the unknowns. The
loop validates after every epoch, keeps the best one, and writes checkpoints from which a run
continues bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import ArtifactError, InvalidInputError, differences
from qnad_art.files.artifacts import load_tensors, save_tensors
from qnad_art.files.atomic import plain
from qnad_art.network.modes import evaluating
from qnad_art.training.adversarial import AdversarialSettings, TuningEpoch, Unknowns, perturb

_KIND = "tuning-checkpoint"
_VERSION = 5
"""Increased whenever older checkpoints no longer allow a run to continue bit for bit."""
_HISTORY = TypeAdapter(list[TuningEpoch])


class AdversarialLoop:
    """One run of the optimisation; see :class:`AdversarialSettings`.

    Args:
        network: the module. It changes only through ``unknowns`` and is in eval mode during a run.
        unknowns: the quantities to optimise.
        training, validation: images (N, …) and class indices (N,).
        settings: settings of the run.
        before_epoch: called with the number of each epoch before it starts.
    """

    def __init__(
        self,
        network: nn.Module,
        unknowns: Unknowns,
        training: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        settings: AdversarialSettings,
        *,
        before_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        self.network, self.unknowns, self.settings = network, unknowns, settings
        self.place = next(iter(unknowns.parameters.values())).device
        self.x, self.y = (tensor.to(self.place) for tensor in training)
        self.held_x, self.held_y = (tensor.to(self.place) for tensor in validation)
        self.before_epoch = before_epoch
        self.generator = torch.Generator(self.place).manual_seed(settings.seed)
        self.optimizer = torch.optim.Adam(unknowns.parameters.values(), lr=settings.learning_rate)
        self.batches = -(-len(self.x) // settings.batch_size)
        self.history: list[TuningEpoch] = []
        self.best = dict(unknowns.result())
        # Computed here, because the unknowns may be weights, which will change.
        self.identity = self._identity() if settings.checkpoint is not None else {}

    def run(self) -> dict[str, Tensor]:
        """Run the optimisation and return the result of the best epoch."""
        with evaluating(self.network):
            if self.settings.resume:
                self._restore()
            while not self._finished():
                self._epoch(len(self.history) + 1)
        return self.best

    def step(self, chosen: Tensor, progress: float) -> float:
        """Take one step on the images ``chosen`` and return the loss.

        ``progress`` is the fraction of steps that are finished. The network must be in eval mode,
        which :meth:`run` ensures.
        """
        settings = self.settings
        rate = settings.learning_rate * (1 + torch.cos(torch.tensor(torch.pi * progress))) / 2
        self.optimizer.param_groups[0]["lr"] = float(rate)
        x, y = self.x[chosen], self.y[chosen]
        epsilon = settings.epsilon * min(1.0, 3 * progress + 0.02)
        weight = settings.robust_weight
        execution = self.unknowns.execution
        shots = nullcontext() if settings.shot_noise else execution.exact()
        with shots, self.unknowns.optimising(), self._autocast():
            # Alternate, because saturation can hide a network from one kind of gradients.
            last = bool(torch.rand((), generator=self.generator, device=self.place) < 0.5)
            with execution.gradients[-1 if last else 0]():
                adversarial = self._attack(x, y, epsilon, settings.attack_steps)
            parts = [(1 - weight, x), (weight, adversarial)]
            parts = [(share, images) for share, images in parts if share > 0]
            logits = self.network(torch.cat([images for _, images in parts])).float()
            losses = (functional.cross_entropy(part, y) for part in logits.split(len(x)))
            loss = torch.stack([s * part for (s, _), part in zip(parts, losses, strict=True)]).sum()
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.unknowns.project()
        return float(loss.detach())

    def _epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        self.before_epoch(epoch)
        order = torch.randperm(len(self.x), generator=self.generator, device=self.place)
        total = 0.0
        for index, chosen in enumerate(order.split(self.settings.batch_size)):
            done = (epoch - 1 + index / self.batches) / self.settings.epochs
            total += self.step(chosen, done) * len(chosen)
            if self.settings.on_step is not None:
                steps = (epoch - 1) * self.batches + index + 1
                self.settings.on_step(steps, self.settings.epochs * self.batches)
        if not math.isfinite(total):
            rate = self.settings.learning_rate
            raise InvalidInputError(
                f"The loss became {total} in epoch {epoch}; lower the learning rate of {rate:g}, "
                f"say to {rate / 10:g}."
            )
        clean, robust = self._validate()
        result = TuningEpoch(
            epoch,
            self.settings.epochs,
            total / len(self.x),
            clean,
            robust,
            time.perf_counter() - start,
        )
        if not self.history or self._score(result) > max(map(self._score, self.history)):
            self.best = dict(self.unknowns.result())
        self.history.append(result)
        if self.settings.checkpoint is not None:
            self._save(Path(self.settings.checkpoint))
        if self.settings.on_epoch is not None:
            self.settings.on_epoch(result)

    def _finished(self) -> bool:
        if len(self.history) >= self.settings.epochs:
            return True
        if self.settings.patience is None or not self.history:
            return False
        scores = [self._score(result) for result in self.history]
        return len(scores) - 1 - scores.index(max(scores)) >= self.settings.patience

    def _score(self, result: TuningEpoch) -> float:
        weight = self.settings.robust_weight
        return weight * result.robust + (1 - weight) * result.clean

    def _validate(self) -> tuple[float, float]:
        """Validation accuracy on clean images, and under PGD with both kinds of gradients."""
        steps = max(10, 2 * self.settings.attack_steps)
        self.unknowns.install()
        clean, robust = 0, 0
        size = 2 * self.settings.batch_size
        batches = zip(self.held_x.split(size), self.held_y.split(size), strict=True)
        with self._autocast():
            for x, y in batches:
                holds = torch.ones_like(y, dtype=torch.bool)
                for gradients in self.unknowns.execution.gradients:
                    with gradients():
                        adversarial = self._attack(x, y, self.settings.epsilon, steps)
                    with torch.no_grad():
                        holds &= self.network(adversarial).argmax(1) == y
                with torch.no_grad():
                    clean += int((self.network(x).argmax(1) == y).sum())
                robust += int(holds.sum())
        return clean / len(self.held_y), robust / len(self.held_y)

    def _attack(self, x: Tensor, y: Tensor, epsilon: float, steps: int) -> Tensor:
        budget, clip = self.settings.in_units_of(x, epsilon)
        return perturb(
            self.network, x, y, epsilon=budget, steps=steps, clip=clip, generator=self.generator
        )

    def _autocast(self) -> torch.autocast:
        low = self.settings.precision == "bfloat16"
        return torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=low)

    def _save(self, path: Path) -> None:
        tensors = {f"unknowns.{name}": value for name, value in self.unknowns.state().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self.unknowns.parameters.items():
            for moment, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{moment}"] = value
        tensors["generator"] = self.generator.get_state()
        noise = self.unknowns.execution.noise()
        tensors |= {f"noise.{name}": value for name, value in noise.items()}
        history = [asdict(result) for result in self.history]
        header = {"version": _VERSION, "run": self.identity, "history": history}
        save_tensors(path, tensors, kind=_KIND, header=header)

    def _restore(self) -> None:
        path = Path(self.settings.checkpoint or "")
        if self.settings.checkpoint is None or not path.exists():
            return
        tensors, header = load_tensors(path, kind=_KIND)
        if header.get("version") != _VERSION:
            raise ArtifactError(
                f"{path} is a checkpoint of version {header.get('version')}; this qnad_art "
                f"continues from version {_VERSION}. Use the one that wrote it, or do not resume."
            )
        try:
            if differing := differences(header["run"], self.identity):
                raise ArtifactError(
                    f"{path} is of another run: {differing}. Use its settings, or do not resume."
                )
            self._take_over(tensors, header["history"])
        except ArtifactError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is an incomplete checkpoint ({error!r}).") from error

    def _take_over(self, tensors: Mapping[str, Tensor], history: list[dict[str, Any]]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            parts.setdefault(kind, {})[name] = value
        self.unknowns.restore(parts["unknowns"])
        self.best = parts["best"]
        for key, value in parts["adam"].items():
            name, _, moment = key.rpartition(".")
            state = self.optimizer.state[self.unknowns.parameters[name]]
            state[moment] = value.to("cpu" if moment == "step" else self.place)
        self.generator.set_state(tensors["generator"])
        self.unknowns.execution.restore_noise(parts.get("noise", {}))
        self.history = _HISTORY.validate_python(history)

    def _identity(self) -> dict[str, Any]:
        """All that the result of the run depends on."""
        network, digest = self.network, hashlib.sha256()
        data = (self.x, self.y, self.held_x, self.held_y)
        for tensor in (*data, *network.parameters(), *network.buffers()):
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        executed, content = self.unknowns.execution.identity()
        digest.update(content)
        identity = {**self.settings.recorded(), **executed}
        identity["data and network"] = digest.hexdigest()[:16]
        as_read: dict[str, Any] = json.loads(json.dumps(identity, default=plain))
        return as_read
