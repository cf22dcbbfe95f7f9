"""Error text for an unknown name: the name found, the allowed ones and the nearest of them."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, found: str, allowed: Iterable[str]) -> str:
    """Format the error for a name that is not one of the allowed ones.

    Args:
        kind: Kind of thing that is named, such as ``architecture``.
        found: The name as the user wrote it.
        allowed: Every valid name.

    Returns:
        One line: ``unknown architecture 'ViT-B32'; did you mean 'ViT-B-32'? allowed: …``.
    """
    names = sorted(allowed)
    lower_case = {name.lower(): name for name in names}
    nearest = get_close_matches(found.lower(), lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean '{lower_case[nearest[0]]}'?" if nearest else ";"
    return f"unknown {kind} '{found}'{hint} allowed: {', '.join(names)}"
