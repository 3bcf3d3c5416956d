"""Conformance suite for data sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from qnad_art.datasets.dataset import Dataset, Source
from qnad_art.testing.checks import Suite, expect, expect_name, expect_type, name_of, registered

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class _Case:
    """A data set's function, and the folder that it may read."""

    read: Callable[[Source], Dataset]
    name: str | None
    data_dir: Path | None
    _loaded: dict[Split, Dataset] = field(default_factory=dict)

    def load(self, split: Split) -> Dataset:
        return self.read(Source(split, self.data_dir, False, None))

    def kept(self, split: Split) -> Dataset:
        if split not in self._loaded:
            self._loaded[split] = self.load(split)
        return self._loaded[split]


def both_splits_are_data_sets(case: _Case) -> None:
    """Both splits are Datasets with images, a name and a sentence on their origin."""
    for split in SPLITS:
        data = case.kept(split)
        expect_type(data, Dataset)
        expect(len(data), found=f"no image in the split {split!r}", expected="some")
        expect_name(data.name, case.name)
        expect(data.provenance, found="no provenance", expected="a sentence on the origin")


def splits_go_together(case: _Case) -> None:
    """Splits have the same classes and image shape, different images, and no class left out."""
    train, test = (case.kept(split) for split in SPLITS)
    for what, one, other in (
        ("classes", train.classes, test.classes),
        ("image shape", train.x.shape[1:], test.x.shape[1:]),
    ):
        expect(
            one == other,
            found=f"{what} {one} for the training images and {other} for the test images",
            expected="the same",
        )
    missing = sorted(set(range(len(train.classes))) - set(train.y.tolist()))
    expect(not missing, found=f"no training image of {missing}", expected="some of every class")
    same = train.x.shape == test.x.shape and np.array_equal(train.x, test.x)
    expect(not same, found="the same images in both splits", expected="different ones")


def is_the_same_at_every_call(case: _Case) -> None:
    """Every call returns the same data, because results identify their data by a hash."""
    for split in SPLITS:
        one, other = case.kept(split), case.load(split)
        expect(
            np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y),
            found=f"different images or another order in the second call for {split!r}",
            expected="the same",
        )


SUITE: Suite[_Case] = Suite("data set")


@SUITE.run_on
def check_dataset(
    dataset: str | Callable[[Source], Dataset], *, data_dir: str | Path | None = None
) -> _Case:
    """Check a data set without downloading anything.

    Args:
        dataset: registered name, or a function of a :class:`~qnad_art.datasets.dataset.Source`.
        data_dir: folder with data sets, if the data set needs one.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    folder = None if data_dir is None else Path(data_dir)
    return _Case(registered("data set", dataset), name_of(dataset), folder)
