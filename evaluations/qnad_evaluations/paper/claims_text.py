"""The sections of the page on the paper's claims."""

from __future__ import annotations

from collections.abc import Sequence

from qnad_evaluations.paper.claims import Claim
from qnad_evaluations.paper.evidence import JUDGED
from qnad_evaluations.paper.markdown import folded, markdown
from qnad_evaluations.paper.marks import LEGEND, marked
from qnad_evaluations.paper.rules import Finding


def claims_section(made: Sequence[Claim]) -> str:
    """Every claim with its verdict, its rule and the figures behind it."""
    rows = [
        (
            claim.text,
            claim.method,
            marked(f"**{claim.word}**", claim.mark),
            claim.count,
            "; ".join(
                f"{j.network} {j.attack}: {marked(j.word, j.mark)}" for j in claim.judgements
            ),
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
            "attack and rung together at 95 % (Bonferroni, over ε and over the fractions that a "
            "best one is chosen from). A verdict has the worst mark of the "
            f"figures that it rests on. {LEGEND}",
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
        by_place = {(j.network, j.attack): j for j in claim.judgements}
        for network in dict.fromkeys(j.network for j in claim.judgements):
            weak, strong = (by_place.get((network, f"pgd-{kind}")) for kind in ("weak", "strong"))
            if weak is None or strong is None or "not measured" in (weak.word, strong.word):
                continue
            rows.append((claim, network, weak, strong))
    if not rows:
        return ""
    differ = [
        (claim.text, claim.method, network, *(marked(j.word, j.mark) for j in (weak, strong)))
        for claim, network, weak, strong in rows
        if weak.word != strong.word
    ]
    return "\n\n".join(
        [
            "## What hangs on the settings of PGD",
            "The paper prints none. *weak*: 5 steps, no restart; *strong*: 40 steps, 5 restarts. "
            f"Verdicts that both were measured for: {len(rows)}; that differ: {len(differ)}.",
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
    word = marked("holds" if finding.holds else "does not hold", finding.mark)
    return f"{word}: {finding.figures}"
