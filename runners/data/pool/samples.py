"""Samples of a tar shard: members grouped by key; samples beside unreadable bytes are marked."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from runners.data.pool.tar_members import Gap, Member, members_of

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")

INCOMPLETE = "incomplete beside unreadable bytes"
"""Reason for a sample that may have a part in unreadable bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Members of one key that lie side by side.

    Attributes:
        key: The sample's key in webdataset: the common name of its members.
        members: File ending → (offset in the shard, content).
        faults: File ending → reason, of members that are not read.
        whole: False if the sample lies beside unreadable bytes and lacks members that others have.
    """

    key: str
    members: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    whole: bool = True

    @property
    def endings(self) -> frozenset[str]:
        """File endings of all its members; one name for all kinds of images."""
        return frozenset("image" if kind in IMAGE_KINDS else kind for kind in (*self.members, *self.faults))

    @property
    def fault(self) -> str:
        """The reason why a member is not read; empty if all are."""
        return next((f"{kind} is {reason}" for kind, reason in self.faults.items()), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadableRange:
    """A range of a shard's bytes that holds no readable sample.

    Attributes:
        key: The last sample before it, or the one that begins it.
        reason: The problem, with the range.
    """

    key: str
    reason: str


class ShardError(ValueError):
    """A shard that cannot be read to its end.

    Args:
        path: The shard.
        key: Key of the incomplete sample, or empty.
        reason: The problem.
    """

    def __init__(self, path: Path, key: str, reason: str) -> None:
        super().__init__(f"cannot read shard {path}{f' after sample {key}' if key else ''}: {reason}")
        self.key, self.reason = key, reason


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Read a sound tar sample by sample.

    Yields:
        The key and, for each file ending, the content with its offset: (offset, content).

    Raises:
        ShardError: The file is missing, is not a tar, or some of its bytes hold no sample.
    """
    for each in walk_samples(path):
        if isinstance(each, UnreadableRange):
            raise ShardError(path, each.key, each.reason)
        if not each.whole:
            continue  # the unreadable bytes beside it are an error
        if each.fault:
            raise ShardError(path, each.key, each.fault)
        yield each.key, each.members


def walk_samples(path: Path) -> Iterator[Sample | UnreadableRange]:
    """Read a tar sample by sample, as webdataset groups its members, past everything that is damaged.

    A member that repeats begins a new sample, so adjacent samples may have the same key. A member without a
    stem or an ending belongs to no sample.
    """
    # ``now`` is the present sample; ``usual``, the members of the last sample known to be whole.
    key, now, usual = "", Sample(key=""), frozenset[str]()
    beside = False  # True if the present sample follows unreadable bytes, and may lack its first members
    try:
        for its_key, ending, each in _members_of_samples(path):
            if isinstance(each, Gap):
                # The member that begins the gap belongs to the present sample, or shows that it had ended.
                ended = its_key != now.key if each.name else each.clean and _has_all(now, usual)
                if now.endings:
                    yield replace(now, whole=ended and (not beside or _has_all(now, usual)))
                key = its_key or key
                yield UnreadableRange(key=key, reason=each.reason)
                now, beside = Sample(key=""), True
                continue
            key = its_key
            if now.endings and (key != now.key or ending in now.members or ending in now.faults):
                yield replace(now, whole=not beside or _has_all(now, usual))
                usual, beside = usual if beside else now.endings, False
                now = Sample(key=key)
            elif not now.endings:
                now = Sample(key=key)
            if each.fault:
                now.faults[ending] = each.fault
            else:
                now.members[ending] = each.offset, each.content
    except OSError as error:
        if now.endings:
            yield replace(now, whole=False)
        yield UnreadableRange(key=key, reason=error.strerror or str(error))
        return
    if now.endings:
        yield replace(now, whole=not beside or _has_all(now, usual))


def _members_of_samples(path: Path) -> Iterator[tuple[str, str, Member | Gap]]:
    """Yield key, ending and member, or gap, of a tar, without the members that belong to no sample."""
    for each in members_of(path):
        key, ending = _key_of(each.name)
        # Such as README, and the ``._a.png`` that macOS puts beside each file.
        if isinstance(each, Gap) or (ending and key and not key.endswith("/")):
            yield key, ending, each


def _key_of(name: str) -> tuple[str, str]:
    folder, slash, name = name.rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending.lower()


def _has_all(sample: Sample, usual: frozenset[str]) -> bool:
    """Return whether a sample has all members that the one before it has."""
    return bool(usual) and usual <= sample.endings
