"""The attacks by name, and what each counts as; nothing of Foolbox is imported here."""

from __future__ import annotations

from typing import Any

from qnad_art.benchmark.attacks.catalogue import AttackEntry, Kind, Norm, ball

# As many steps as the benchmark gives ART's attacks of the same kind.
_CONSTANT: dict[str, Any] = {"initial_const": 1.0, "binary_search_steps": 6}


def _within(name: str, norm: Norm, **more: Any) -> AttackEntry:
    return AttackEntry(f"qnad_foolbox.attacks:{name}", "gradient", norm, ball, **more)


def _smallest(name: str, norm: Norm, kind: Kind = "gradient", **settings: Any) -> AttackEntry:
    return AttackEntry(f"qnad_foolbox.attacks:{name}", kind, norm, settings=settings)


FGSM = _within("Fgsm", "inf", single_step=True)
PGD = _within("Pgd", "inf")
PGD_L2 = _within("PgdL2", "2")
PGD_L1 = _within("PgdL1", "1")
ADAM_PGD = _within("AdamPgd", "inf")
MI_FGSM = _within("MiFgsm", "inf")
DEEPFOOL_L2 = _smallest("DeepFoolL2", "2")
DEEPFOOL_LINF = _smallest("DeepFoolLinf", "inf")
CW_L2 = _smallest("CarliniWagner", "2", **_CONSTANT, steps=50, stepsize=0.1)
EAD = _smallest("Ead", "1", **_CONSTANT, steps=50, initial_stepsize=0.1)
DDN = _smallest("Ddn", "2")
FMN_LINF = _smallest("FmnLinf", "inf")
FMN_L2 = _smallest("FmnL2", "2")
FMN_L0 = _smallest("FmnL0", "0")
SALT_AND_PEPPER = _smallest("SaltAndPepper", "2", "query")
BRENDEL_BETHGE_LINF = AttackEntry("qnad_foolbox.boundary:BrendelBethgeLinf", "gradient", "inf")
BRENDEL_BETHGE_L2 = AttackEntry("qnad_foolbox.boundary:BrendelBethgeL2", "gradient", "2")
