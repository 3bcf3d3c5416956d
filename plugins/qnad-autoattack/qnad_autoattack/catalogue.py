"""The attacks by name, and what each counts as; nothing of AutoAttack is imported here."""

from __future__ import annotations

from qnad_art.benchmark.attacks.catalogue import AttackEntry, Kind, ball


def _entry(name: str, kind: Kind = "gradient") -> AttackEntry:
    return AttackEntry(f"qnad_autoattack.attacks:{name}", kind, "inf", ball)


STANDARD = _entry("Standard")
RAND = _entry("Rand")
APGD_CE = _entry("ApgdCe")
APGD_DLR = _entry("ApgdDlr")
APGD_TARGETED = _entry("ApgdTargeted")
FAB_TARGETED = _entry("FabTargeted")
SQUARE = _entry("Square", "query")
