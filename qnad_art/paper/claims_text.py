"""The sections of the page on the paper's claims."""

from __future__ import annotations

from collections.abc import Sequence

from qnad_art.paper.claims import Claim
from qnad_art.paper.evidence import JUDGED
from qnad_art.paper.markdown import folded, markdown
from qnad_art.paper.rules import Finding


def claims_section(made: Sequence[Claim]) -> str:
    """Every claim with its verdict, its rule and the figures behind it."""
    rows = [
        (
            claim.text,
            claim.method,
            f"**{claim.word}**",
            claim.count,
            "; ".join(f"{j.network} {j.attack}: {j.word}" for j in claim.judgements),
        )
        for claim in made
    ]
    if not any(claim.judgements for claim in made):
        return ""
    details = [
        (
            claim.text,
            claim.method,
            judgement.network,
            judgement.attack,
            *(_finding(judgement.findings.get(rung)) for rung in JUDGED),
        )
        for claim in made
        for judgement in claim.judgements
    ]
    rules = dict.fromkeys((claim.text, claim.rule) for claim in made)
    return "\n\n".join(
        [
            "## The paper's claims",
            "*reproduced*: holds on the rungs transfer and adaptive; *only under transfer*: on "
            "transfer, the paper's setting, but not against an attacker who knows the defence; "
            "*not reproduced*: not even there. The verdict is the weakest over all networks and "
            "attacks; the count says in how many the claim is reproduced. A claim holds where the "
            "intervals of the differences that it speaks of leave out zero, all of a network, "
            "attack and rung together at 95 % (Bonferroni):",
            "\n".join(f"- {text}: {rule}." for text, rule in rules),
            markdown(("claim", "method", "verdict", "reproduced", "by network and attack"), rows),
            folded(
                "The figures behind every verdict",
                markdown(("claim", "method", "network", "attack", "transfer", "adaptive"), details),
            ),
        ]
    )


def attack_choice_section(made: Sequence[Claim]) -> str:
    """Verdicts that hang on how strong PGD is."""
    rows = []
    for claim in made:
        by_place = {(j.network, j.attack): j.word for j in claim.judgements}
        for network in dict.fromkeys(j.network for j in claim.judgements):
            weak, strong = (by_place.get((network, f"pgd-{kind}")) for kind in ("weak", "strong"))
            if weak is not None and strong is not None and "not measured" not in (weak, strong):
                rows.append((claim.text, claim.method, network, weak, strong))
    if not rows:
        return ""
    differ = [row for row in rows if row[3] != row[4]]
    return "\n\n".join(
        [
            "## What hangs on the settings of PGD",
            "The paper prints none. *weak*: 5 steps, no restart; *strong*: 40 steps, 5 restarts. "
            f"Of {len(rows)} verdicts that both were measured for, {len(differ)} differ.",
            *(
                [markdown(("claim", "method", "network", "weak", "strong"), differ)]
                if differ
                else []
            ),
        ]
    )


def _finding(finding: Finding | None) -> str:
    if finding is None:
        return "not measured"
    return f"{'holds' if finding.holds else 'does not hold'}: {finding.figures}"
