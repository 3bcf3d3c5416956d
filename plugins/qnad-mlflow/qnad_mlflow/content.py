"""What is logged of a suite, a result and a plan, in MLflow's terms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from qnad_mlflow.secrets import hide, hide_in

if TYPE_CHECKING:
    from qnad_art.benchmark.records import Result
    from qnad_art.benchmark.suites.suite import Suite
    from qnad_art.placement.plan import CrosstalkPlan

_LONGEST_PARAMETER = 500
"""Characters that every version of MLflow takes; the YAML file has all."""

Metrics = list[tuple[str, float, int]]
"""Name, value, step."""


def suite_yaml(suite: Suite) -> str:
    """The suite, all settings written out, as ``qnad evaluate`` reads it."""
    content = hide(suite.model_dump(mode="json"))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def suite_parameters(suite: Suite) -> dict[str, str]:
    """One parameter for each key of the suite and of its ``data`` and ``protocol``."""
    content = hide(suite.model_dump(mode="json"))
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("data", "protocol"):
            flat |= {f"{name}.{inner}": setting for inner, setting in value.items()}
        else:
            flat[name] = value
    return _parameters(flat)


def result_parameters(result: Result) -> dict[str, str]:
    """The cell's coordinates, and what its figures depend on."""
    provenance = result.provenance
    plan = provenance.plan.model_dump() if provenance.plan is not None else {}
    return _parameters(
        {
            **result.cell.model_dump(),
            "norm": result.norm,
            "single_step": result.single_step,
            "shots": provenance.shots,
            **{f"plan.{name}": value for name, value in plan.items()},
            "device_hash": provenance.device_hash,
            "data_hash": provenance.data_hash,
            "weights_hash": provenance.weights_hash,
        }
    )


def result_metrics(result: Result) -> Metrics:
    """Figures with the ends of their 95 % intervals; the curve has its samples as steps."""
    figures: dict[str, float | None] = {
        "images": result.images,
        "draws": result.draws,
        "gradients": result.gradients,
        "queries": result.queries,
        "seconds": result.seconds,
    }
    for name in ("accuracy", "majority", "every_draw"):
        interval = getattr(result, name)
        figures |= {
            name: interval.value,
            f"{name}.low": interval.low,
            f"{name}.high": interval.high,
        }
    figures |= {f"perturbation.{norm}": size for norm, size in result.perturbation.items()}
    for gate in result.gates:
        figures |= {f"gate.{gate.name}.{name}": value for name, value in gate.figures.items()}
    curve = [(f"curve.{p.gradients}", p.accuracy, p.samples) for p in result.curve]
    once = [(name, float(value), 0) for name, value in figures.items() if value is not None]
    return [(key(name), value, step) for name, value, step in (*once, *curve)]


def result_tags(result: Result) -> dict[str, str]:
    """The cell's key and coordinates, its gates and the versions it was measured with."""
    cell = result.cell.model_dump(exclude_none=True)
    return {
        "qnad.key": result.key,
        **{f"qnad.{name}": hide_in(str(value)) for name, value in cell.items()},
        **{key(f"qnad.gate.{gate.name}"): gate.verdict for gate in result.gates},
        "qnad.versions": json.dumps(result.provenance.versions, sort_keys=True),
    }


def plan_summary(plan: CrosstalkPlan) -> dict[str, Any]:
    """A crosstalk plan in brief."""
    summary: dict[str, Any] = hide(
        {
            "strategy": plan.strategy,
            "settings": dict(plan.settings),
            "device": plan.device,
            "device_hash": plan.device_hash,
            "weights": plan.weights,
            "requested": plan.requested,
            "achieved": plan.achieved,
            "injected": plan.injected,
            "added_gates": plan.added_gates(),
            "weights by number of pairs": {
                layer: {str(pairs): count for pairs, count in counts.items()}
                for layer, counts in plan.histogram().items()
            },
        }
    )
    return summary


def key(name: str) -> str:
    """A name of a metric, parameter or tag that every store of MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", name.replace("ε", "eps").replace("∞", "inf"))


def _parameters(content: Mapping[str, Any]) -> dict[str, str]:
    return dict(_texts(content))


def _texts(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield key(name), hide_in(text)[:_LONGEST_PARAMETER]
