"""Agreement of a study with a figure of the paper, in one sentence, by the paper's claims."""

import re
from collections.abc import Sequence

from analysis.claims.findings import Finding
from analysis.labels import capital
from budgets.quantity import plural

_DECIDED = ("supported", "contradicted")
_FIGURE = re.compile(r"Fig (\d+)(?:([a-z])(?:-([a-z]))?)?")


def agreement_text(panels: Sequence[str], ours: Sequence[Finding], theirs: Sequence[Finding]) -> str:
    """Return which claims about some panels the study and the paper's own figures agree on.

    Args:
        panels: Panels of the paper, such as ``2a``.
        ours: Verdicts by the study.
        theirs: Verdicts by the paper's digitised figures.
    """
    published = {(one.claim.name, one.claim.part): one.verdict for one in theirs}
    here = [one for one in ours if any(_shows(one.claim.where, panel) for panel in panels)]
    if not here:
        return "No claim of the paper rests on this figure alone."
    decided = [
        (one, published.get((one.claim.name, one.claim.part), "")) for one in here if one.verdict in _DECIDED
    ]
    same = [_said(one) for one, verdict in decided if one.verdict == verdict]
    apart = [
        f"{_said(one)} ({one.verdict} here, {verdict} in the paper)"
        for one, verdict in decided
        if one.verdict != verdict and verdict in _DECIDED
    ]
    parts = [f"agrees: {', '.join(same)}"] if same else []
    parts += [f"disagrees: {', '.join(apart)}"] if apart else []
    left = len(here) - len(same) - len(apart)
    parts += [f"not tested or not decided: {plural(left, 'claim')}"] if left else []
    return f"{capital('; '.join(parts))}."


def _said(one: Finding) -> str:
    part = f" ({one.claim.part})" if one.claim.part else ""
    return f"“{one.claim.text.rstrip('.')}”{part}"


def _shows(where: str, panel: str) -> bool:
    """Return whether a place in the paper, such as ``Sec 4, Fig 6c-d``, includes a panel."""
    number, letter = re.fullmatch(r"(\d+)([a-z]?)", panel).groups()  # type: ignore[union-attr]
    return any(
        figure == number and (not first or first <= letter <= (last or first))
        for figure, first, last in _FIGURE.findall(where)
    )
