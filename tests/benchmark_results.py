"""Results as a run would have them, made up: every figure follows from a few numbers."""

import numpy as np

from qnad_art.benchmark.audit.audit import audit_results
from qnad_art.benchmark.records import (
    Bits,
    Cell,
    CurvePoint,
    Gate,
    Plan,
    Provenance,
    Result,
    content_address,
)
from qnad_art.benchmark.report.source import Source
from qnad_art.benchmark.statistics.intervals import accuracy_interval, wilson

WHERE = {"model": "lenet5", "data": "mnist5k", "device": "ibm_nairobi"}
IMAGES = 60


def cell(kind="clean", *, defence="none", seed=0, **more):
    return Cell(kind=kind, defence=defence, seed=seed, **{**WHERE, **more})


def attack(attack="pgd", *, eps=0.1, rung="white-box", **more):
    return cell("attack", attack=attack, eps=eps, rung=rung, **more)


def result(of, correct, **more):
    """The result of a cell from outcomes (draws, images)."""
    correct = np.asarray(correct, dtype=bool)
    every, votes = correct.all(0), correct.mean(0) > 0.5
    images = correct.shape[1]
    whole = wilson(int(every.sum()), images)
    accuracy = accuracy_interval(correct, resamples=300)
    provenance = {
        "device_hash": None,
        "shots": None,
        "plan": None,
        "data_hash": "d" * 64,
        "weights_hash": "w" * 64,
        "seed": of.seed,
        "versions": {"python": "3.11.7", "torch": "2.9.1"},
        **more.pop("provenance", {}),
    }
    return Result(
        **{
            "key": content_address(of.model_dump()),
            "cell": of,
            "accuracy": whole if of.rung == "persistent" else accuracy,
            "majority": wilson(int(votes.sum()), images),
            "every_draw": whole,
            "images": images,
            "draws": len(correct),
            "correct": Bits.pack(correct),
            "votes": Bits.pack(votes),
            "norm": "inf" if of.eps is not None else None,
            "seconds": 1.25,
            "provenance": Provenance(**provenance),
            **more,
        }
    )


def outcomes(share, *, draws=1, images=IMAGES, seed=0):
    """(draws, images): ``share`` of the images are right, the easy ones first, a little noisily."""
    rng = np.random.default_rng(seed)
    hardness = (np.arange(images) + 0.5) / images
    return hardness + 0.03 * rng.normal(size=(draws, images)) * (draws > 1) < share


def failed(name="gradients exist"):
    return Gate(
        name=name,
        verdict="fail",
        demand="gradients are neither zero nor NaN",
        figures={"images without gradient": 0.98, "signal-to-noise": None},
        reason="98 % of the images have no gradient",
    )


def passed(name="unbounded ε"):
    return Gate(name=name, verdict="pass", demand="accuracy falls to chance", figures={"at": 0.01})


def a_suite(
    defences=None, *, seeds=(0,), eps=(0.1, 0.2), attacks=("fgsm", "pgd"), device_hash="h" * 64
):
    """Results of a whole suite.

    ``defences``: share of clean images right, and how slowly it falls in ε (0: fast, 1: never). The
    defence "masked" fails its audit, those of "crosstalk …" run on the device.
    """
    defences = defences or {
        "none": (0.97, 0.0),
        "crosstalk 0.1": (0.95, 0.3),
        "crosstalk 0.3": (0.93, 0.5),
        "masked": (0.90, 0.9),
    }
    found = []
    for defence, (clean, slowness) in defences.items():
        for seed in seeds:
            quantum = defence.startswith("crosstalk")
            draws = 4 if quantum else 1
            plan = Plan(strategy="uniform", requested=0.3, achieved=0.295, injected=12)
            more = {"provenance": {"device_hash": device_hash, "shots": 1024, "plan": plan}}
            more = more if quantum else {}
            here = {"defence": defence, "seed": seed}
            found.append(result(cell(**here), outcomes(clean, draws=draws, seed=seed), **more))
            gates = (failed() if defence == "masked" else passed(),)
            audited = outcomes(clean, images=20)
            found.append(result(cell("audit", **here), audited, gates=gates, **more))
            for name in attacks:
                for budget in eps:
                    for rung, easier in (("transfer", 0.1), ("white-box", 0.05), ("adaptive", 0)):
                        left = clean * (1 - (1 - slowness) * budget / max(eps)) + easier / 3
                        left = min(left, clean) - (0.02 if name == "pgd" else 0)
                        right = outcomes(max(left, 0), draws=draws, seed=seed)
                        points = tuple(
                            CurvePoint(samples=k, gradients="true", accuracy=max(left, 0) / k)
                            for k in ((1, 5) if rung == "adaptive" else ())
                        )
                        of = attack(name, eps=budget, rung=rung, **here)
                        size = {"linf": budget, "l2": 10 * budget}
                        extra = {"curve": points, "perturbation": size, "gradients": 600, **more}
                        found.append(result(of, right, single_step=name == "fgsm", **extra))
    return found


def a_source(results=None, **more):
    """What a report is made from."""
    results = a_suite() if results is None else results
    settings = {
        "title": "ladder",
        "suite": '{"name": "ladder"}',
        "cells": tuple(r.cell for r in results),
        "results": tuple(results),
        "gates": audit_results(results),
        "undefended": "none",
        "classical": frozenset({"none", "masked"}),
        "families": [("crosstalk", [(0.1, "crosstalk 0.1"), (0.3, "crosstalk 0.3")])],
        "devices": {"ibm_nairobi": "ibm_nairobi"},
    }
    return Source(**{**settings, **more})
