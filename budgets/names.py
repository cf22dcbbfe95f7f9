"""Error text for an unknown name: the name found, the allowed ones and the nearest of them."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, found: str, allowed: Iterable[str], *, meant: str | None = None) -> str:
    """Format the error for a name that is not one of the allowed ones.

    Args:
        kind: Kind of thing that is named, such as ``architecture``.
        found: The name as the user wrote it.
        allowed: Every valid name.
        meant: The name that is looked up for the nearest; the found one by default.

    Returns:
        One line: ``unknown architecture 'ViT-B32'; did you mean 'ViT-B-32'? allowed: …``.
    """
    names = sorted(allowed)
    if not names:
        return f"unknown {kind} '{found}'; there is none"
    lower_case = {name.lower(): name for name in names}
    nearest = get_close_matches((meant or found).lower(), lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean '{lower_case[nearest[0]]}'?" if nearest else ";"
    return f"unknown {kind} '{found}'{hint} allowed: {', '.join(names)}"
