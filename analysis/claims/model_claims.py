"""Claims on models: vision transformers of several sizes and other architectures (sections 5 and 6)."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.claims.slice import EQUAL, ONE_EPOCH, PROBES, RETRIEVAL, ZERO_SHOT, Claim, Effect, M, Slice

_SMALL, _LARGE = 100 * M, 400 * M


def _vits(frame: pd.DataFrame, metric: str, regime: str) -> tuple[Slice, list[str]]:
    """Return the slice of subset sizes by vision transformers, and their names by rising size."""
    kept = frame[(frame["group"] == "vits") & (frame["family"] == "ViT")]
    names = kept.groupby("architecture")["size"].mean().sort_values().index.astype(str).tolist()
    return Slice(kept, "subset_size", "architecture", metric=metric, regime=regime), names


def _nets(frame: pd.DataFrame, metric: str, *regimes: str) -> tuple[Slice, dict[str, str]]:
    """Return the slice of subset sizes by architectures of similar cost, and the one of each family."""
    kept = frame[frame["group"] == "architectures"]
    others = kept[kept["family"] != "ViT"]
    if len(others):
        # The transformer that is closest in cost to the other architectures represents its family.
        far = (np.log(kept["size"]) - np.log(others["size"]).mean()).abs()
        peers = (
            kept[kept["family"] == "ViT"].assign(far=far).sort_values("far", kind="stable")["architecture"]
        )
        kept = kept[(kept["family"] != "ViT") | kept["architecture"].isin(peers.iloc[:1])]
    regime = next((name for name in regimes if (kept["regime"] == name).any()), regimes[0])
    named = dict(zip(kept["family"].astype(str), kept["architecture"].astype(str), strict=True))
    return Slice(kept, "subset_size", "architecture", metric=metric, regime=regime), named


def _largest_is(  # noqa: PLR0913 (which cells, and what is asked of them)
    frame: pd.DataFrame, metrics: tuple[str, ...], regime: str, *, low: float, high: float,
    sign: float = 1.0, slack: float = 0.0,
) -> list[Effect]:  # fmt: skip
    """Return by how much the largest transformer is the best of its row (the worst with ``sign`` −1)."""
    found: list[Effect] = []
    for metric in metrics:
        at, names = _vits(frame, metric, regime)
        if len(names) > 1:
            found += at.leads(names[-1], low=low, high=high, sign=sign, slack=slack)
    return found


def _past_400m(at: Slice, columns: list[str], points: float, *, either_way: bool) -> list[Effect]:
    """Return ``points`` minus the gain from 400M pairs to the largest set (``either_way``: its size)."""
    found: list[Effect] = []
    for name in columns:
        if not at.rows or at.rows[-1] <= _LARGE:
            continue
        for gap in at.gap((_LARGE, name), (at.rows[-1], name)):
            value = abs(gap.value) if either_way else gap.value
            found.append(replace(gap, value=points - value, at=name))
    return found


def _c17(frame: pd.DataFrame) -> list[Effect]:
    at, names = _vits(frame, ZERO_SHOT, EQUAL)
    found: list[Effect] = []
    for low, high in at.steps(names[-1], upto=_LARGE) if names else ():
        before, after = (at.gap((size, names[0]), (size, names[-1])) for size in (low, high))
        found += [
            Effect(value=late.value - early.value, sd=float(np.hypot(late.sd, early.sd)), at=late.at)
            for early, late in zip(before, after, strict=False)
        ]
    return found


def _c18(frame: pd.DataFrame) -> list[Effect]:
    """Return the smallest lead of the best model; negative if a larger set has a smaller best model."""
    at, names = _vits(frame, ZERO_SHOT, EQUAL)
    whole = [size for size in at.rows if all(at.has((size, name)) for name in names)]
    if len(whole) < 2 or len(names) < 2:  # noqa: PLR2004 (two are compared)
        return []
    best = [max(names, key=lambda name, size=size: at.best(size, name)[0].value) for size in whole]  # type: ignore[misc]
    places = [names.index(name) for name in best]
    falls = [place for place, after in pairwise(places) if after < place]
    leads = [at.best(size, name)[0] for size, name in zip(whole, best, strict=True)]
    lead = min(leads, key=lambda effect: effect.value)
    return [replace(lead, value=-lead.value if falls else lead.value)]


def _c23(frame: pd.DataFrame) -> list[Effect]:
    at, names = _vits(frame, PROBES[0], EQUAL)
    sizes = [size for size in at.rows if size > 25 * M]
    gaps = [gap for size in sizes if names for gap in at.gap((25 * M, names[0]), (size, names[0]))]
    return [replace(gap, value=1 - gap.value) for gap in gaps]


def _c24(frame: pd.DataFrame) -> list[Effect]:
    at, names = _vits(frame, PROBES[0], EQUAL)
    if not names or not at.rows:
        return []
    falls = [
        e
        for low, high in at.steps(names[-1], upto=_LARGE)
        for e in at.gap((low, names[-1]), (high, names[-1]))
    ]
    return falls + at.within((_LARGE, names[-1]), (at.rows[-1], names[-1]), 1.0)


def _c26(frame: pd.DataFrame) -> list[Effect]:
    found: list[Effect] = []
    for metric in RETRIEVAL:
        at, names = _vits(frame, metric, EQUAL)
        if len(names) < 2 or not at.rows:  # noqa: PLR2004 (two are compared)
            continue
        small, large = (at.gap((200 * M, name), (at.rows[-1], name)) for name in (names[0], names[-1]))
        found += [
            Effect(value=more.value - less.value, sd=float(np.hypot(more.sd, less.sd)), at=metric)
            for less, more in zip(small, large, strict=False)
        ]
    return found


def _pair(at: Slice, worse: str | None, better: str | None, *, low: float, high: float) -> list[Effect]:
    return [] if worse is None or better is None else at.gaps(worse, better, low=low, high=high)


def _c27(frame: pd.DataFrame, *, many: bool) -> list[Effect]:
    """Compare ResNet and ViT on the smallest set, or on the largest of several (``many``)."""
    at, named = _nets(frame, ZERO_SHOT, ONE_EPOCH)
    net, vit = named.get("ResNet"), named.get("ViT")
    if len(at.rows) < 2:  # noqa: PLR2004 (few and many samples)
        return []
    end = at.rows[-1 if many else 0]
    return _pair(at, *((net, vit) if many else (vit, net)), low=end, high=end)


def _c28(frame: pd.DataFrame) -> list[Effect]:
    at, named = _nets(frame, ZERO_SHOT, ONE_EPOCH)
    return _pair(at, named.get("Swin"), named.get("ViT"), low=0, high=np.inf)


def _best(
    frame: pd.DataFrame, metric: str, family: str, *regimes: str, low: float, high: float
) -> list[Effect]:
    at, named = _nets(frame, metric, *regimes)
    return at.leads(named[family], low=low, high=high) if family in named else []


def _c29(frame: pd.DataFrame) -> list[Effect]:
    """Compare at the lowest level or, without levels, at the smallest set of one epoch."""
    kept = frame[frame["group"] == "architectures"]
    fixed = kept[kept["regime"] == "fixed-compute"]
    if len(fixed):
        lowest = fixed[fixed["budget"] == fixed["budget"].min()]
        return _best(lowest, ZERO_SHOT, "ResNet", "fixed-compute", low=0, high=np.inf)
    once = kept[kept["regime"] == ONE_EPOCH]
    return _best(once, ZERO_SHOT, "ResNet", ONE_EPOCH, low=0, high=once["subset_size"].min())


def _c35(frame: pd.DataFrame) -> list[Effect]:
    found: list[Effect] = []
    for metric in RETRIEVAL:
        found += _best(frame, metric, "ResNet", ONE_EPOCH, low=0, high=_SMALL - 1)
        at, named = _nets(frame, metric, ONE_EPOCH)
        found += _pair(at, named.get("ResNet"), named.get("ViT"), low=_LARGE + 1, high=np.inf)
        equal, named = _nets(frame, metric, EQUAL)
        found += equal.leads(named["Mixer"], sign=-1) if "Mixer" in named else []
    return found


def _c31(frame: pd.DataFrame) -> list[Effect]:
    at, _ = _nets(frame, ZERO_SHOT, EQUAL)
    return _past_400m(at, at.columns, 1.5, either_way=True)


def _c34(frame: pd.DataFrame) -> list[Effect]:
    regimes = ("unclear", ONE_EPOCH)
    few = _best(frame, PROBES[0], "ResNet", *regimes, low=25 * M, high=200 * M)
    return few + _best(frame, PROBES[0], "ViT", *regimes, low=_LARGE, high=np.inf)


MODELS = (
    Claim(
        name="C13", text="In one epoch of fewer than 100M pairs ViT-L/16 is the worst of the ViTs.",
        where="Sec 5, Fig 8a",
        compare=lambda frame: _largest_is(frame, (ZERO_SHOT,), ONE_EPOCH, low=0, high=_SMALL - 1, sign=-1),
    ),
    Claim(
        name="C14", text="Larger encoders win as samples grow: the largest is the best from 400M on.",
        where="Sec 5, Fig 8a",
        compare=lambda frame: _largest_is(frame, (ZERO_SHOT,), ONE_EPOCH, low=_LARGE, high=np.inf),
    ),
    Claim(
        name="C15", text="At equal samples a larger set is better, to 200M.", where="Sec 5, Fig 9a",
        compare=lambda frame: _vits(frame, ZERO_SHOT, EQUAL)[0].falls_by_row(upto=200 * M),
    ),
    Claim(
        name="C16", text="No significant gain from more than 400M pairs at equal samples.",
        where="Sec 5, Fig 9a",
        compare=lambda frame: _past_400m(*_vits(frame, ZERO_SHOT, EQUAL), 1.0, either_way=False),
    ),
    Claim(
        name="C17", text="The gap between the largest and the smallest ViT widens with set size, to 400M.",
        where="Sec 5, Fig 9", compare=_c17,
    ),
    Claim(
        name="C18", text="The best ViT does not get smaller as the set grows.", where="Abstract, Sec 5",
        compare=_c18,
    ),
    Claim(
        name="C21", text="Linear probe: on the smallest sets (10M) ViT-L/16 is worse than the others.",
        where="Sec 5, Fig 10",
        compare=lambda frame: _largest_is(frame, PROBES, EQUAL, low=0, high=10 * M, sign=-1),
    ),
    Claim(
        name="C22", text="Linear probe: from 200M on the largest ViT is the best.", where="Sec 5, Fig 10a",
        compare=lambda frame: _largest_is(frame, PROBES[:1], EQUAL, low=200 * M, high=np.inf),
    ),
    Claim(
        name="C23", text="Linear probe of ViT-Ti/16 does not gain from sets above 25M.",
        where="Sec 5, Fig 10a", compare=_c23,
    ),
    Claim(
        name="C24", text="Linear probe of ViT-L/16 gains until the set exceeds 400M.", where="Sec 5, Fig 10a",
        compare=_c24,
    ),
    Claim(
        name="C25", text="Retrieval: the largest ViT is the worst below 100M samples of one epoch.",
        where="Sec 5, Fig 11a-b",
        compare=lambda frame: _largest_is(
            frame, RETRIEVAL, ONE_EPOCH, low=0, high=_SMALL - 1, sign=-1, slack=0.15
        ),
    ),
    Claim(
        name="C26", text="Retrieval: smaller ViTs gain less from sets above 200M.", where="Sec 5, Fig 11c-d",
        compare=_c26,
    ),
    Claim(
        name="C27", text="One epoch: ResNet is ahead of ViT with few samples and behind with many.",
        part="few", where="Sec 6, Fig 12a", compare=partial(_c27, many=False),
    ),
    Claim(
        name="C27", text="One epoch: ResNet is ahead of ViT with few samples and behind with many.",
        part="many", where="Sec 6, Fig 12a", compare=partial(_c27, many=True),
    ),
    Claim(name="C28", text="One epoch: Swin is behind ViT.", where="Sec 6, Fig 12a", compare=_c28),
    Claim(name="C29", text="At low compute ResNet is the best.", where="Sec 6, Fig 12b", compare=_c29),
    Claim(
        name="C30", text="At equal samples ViT-B/32 is the best architecture.", part="sets below 100M",
        where="Sec 6, Fig 13",
        compare=lambda frame: _best(frame, ZERO_SHOT, "ViT", EQUAL, low=0, high=_SMALL - 1),
    ),
    Claim(
        name="C30", text="At equal samples ViT-B/32 is the best architecture.", part="sets from 100M on",
        where="Sec 6, Fig 13",
        compare=lambda frame: _best(frame, ZERO_SHOT, "ViT", EQUAL, low=_SMALL, high=np.inf),
    ),
    Claim(
        name="C31", text="No architecture gains from sets above 400M.", where="Sec 6, Fig 13", compare=_c31
    ),
    Claim(
        name="C33", text="Linear probe: Mixer is the best below 100M samples.", where="Sec 6, Fig 14a",
        compare=lambda frame: _best(frame, PROBES[0], "Mixer", "unclear", ONE_EPOCH, low=0, high=_SMALL - 1),
    ),
    Claim(
        name="C34", text="Linear probe: ResNet is the choice for few samples, ViT for many.",
        where="Sec 6, Fig 14a", compare=_c34,
    ),
    Claim(
        name="C35", text="Retrieval: ResNet leads with few samples, ViT past 400M; Mixer is the worst.",
        where="Sec 6, Fig 15", compare=_c35,
    ),
)  # fmt: skip
