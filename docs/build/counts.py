"""Writes `budgets/cost/counts.json`: torch's counts of the catalogue's models without a closed form.

Run as ``python -m docs.build.counts`` after such a model was added or changed, or when the counting changes.
"""

from collections.abc import Iterator
from dataclasses import asdict

from budgets.cost.architecture import Architecture, catalogue, load_architecture
from budgets.cost.counted import SHIPPED
from runners.models.count_by_torch import count_model
from runners.store.files import write_json


def counted_entries() -> Iterator[Architecture]:
    """Yield the architectures of the catalogue that have no closed form."""
    return (entry for name in catalogue() if not (entry := load_architecture(name)).closed_form)


if __name__ == "__main__":
    write_json(SHIPPED, {entry.name: asdict(count_model(entry)) for entry in counted_entries()})
