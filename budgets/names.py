"""Error text for an unknown name: the name found, the allowed ones and the nearest of them."""

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_SHOWN = 100
_NEAREST_SHOWN = 12


def unknown(kind: str, found: str, allowed: Iterable[str]) -> str:
    """Format the error for a name that is not one of the allowed ones.

    Args:
        kind: Kind of thing that is named, such as ``architecture``.
        found: The name as the user wrote it.
        allowed: Every valid name.

    Returns:
        One line: ``unknown architecture 'ViT-B32'; did you mean 'ViT-B-32'? allowed: …``; of very many names,
        the nearest.
    """
    names = sorted(allowed)
    if len(names) > _MOST_SHOWN:
        near = get_close_matches(found, names, n=_NEAREST_SHOWN, cutoff=0) or names[:_NEAREST_SHOWN]
        shown = f"{', '.join(near)} and {len(names) - len(near):,} more"
    else:
        shown = ", ".join(names)
    lower_case = {name.lower(): name for name in names}
    nearest = get_close_matches(found.lower(), lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean '{lower_case[nearest[0]]}'?" if nearest else ";"
    return f"unknown {kind} '{found}'{hint} allowed: {shown}"
