"""What a trained model costs when it serves: forward FLOPs of its inputs, and its size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import encoding_flops
from budgets.quantity import format_count, format_flops, format_number, parse_count, parse_flops


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What an architecture costs when it serves.

    Attributes:
        flops: Forward FLOPs of everything that it serves.
        why_not: Why it can't be deployed, in words; empty if it can.
    """

    flops: float = 0.0
    why_not: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """What a model serves over its life, and what it may cost.

    When serving no patch is dropped and no text is shortened, whatever the training strategy. The class
    texts of a zero-shot classifier are embedded once, so they are few.

    Attributes:
        images: Images that it embeds.
        texts: Texts that it embeds.
        most_flops: Most forward FLOPs of an image.
        most_parameters: Most parameters of both towers.
    """

    images: float = 0.0
    texts: float = 0.0
    most_flops: float = inf
    most_parameters: float = inf

    @classmethod
    def of(cls, *, images: float = 0.0, texts: float = 0.0, at_most: Iterable[str] = ()) -> "Deployment":
        """Return a deployment whose limits are texts, by unit: ``5 GFLOP`` an image, ``100M`` parameters.

        Raises:
            ValueError: A limit can't be read, or a number is negative.
        """
        flops, parameters = [inf], [inf]
        for text in at_most:
            try:
                if "FLOP" in text:
                    flops.append(parse_flops(text))
                else:
                    parameters.append(parse_count(text))
            except ValueError as error:
                raise ValueError(f"at most: {error}; FLOPs of an image, or a number of parameters") from None
        for name, number in (("images", images), ("texts", texts)):
            if not 0 <= number < inf:
                raise ValueError(f"{name} must be at least 0; found {number:g}")
        return cls(images=images, texts=texts, most_flops=min(flops), most_parameters=min(parameters))

    def served(self, names: Iterable[str], own: Mapping[str, Architecture]) -> dict[str, Served]:
        """Return what each architecture costs, by its name; ``own`` are the study's.

        Raises:
            ValueError: The limits leave none; the message names the nearest and by how much it exceeds them.
        """
        if self == Deployment():
            return {}
        found, excess = dict[str, Served](), dict[str, float]()
        for name in sorted(set(names)):
            try:
                found[name], excess[name] = self._served(own.get(name) or load_architecture(name))
            except ValueError:  # also `Uncounted`
                found[name] = Served(why_not=f"what {name} costs when it serves is unknown")
        if all(one.why_not for one in found.values()):
            near = min(excess, key=lambda name: excess[name], default="")
            why = next((one.why_not for one in found.values()), "nothing was measured")
            if near:
                times = format_number(excess[near], ".3g")
                why = f"the nearest is {near}: {found[near].why_not} ({times} times as much)"
            raise ValueError(f"no configuration can be deployed: {why}")
        return found

    def _served(self, architecture: Architecture) -> tuple[Served, float]:
        """Return what an architecture costs, and how many times the limits that is."""
        image, text = (
            float(encoding_flops(architecture, images=images, texts=1 - images)) for images in (1, 0)
        )
        parameters = tower_parameters(architecture)
        too_much = []
        if image > self.most_flops:
            too_much.append(f"{format_flops(image)} an image, where at most {format_flops(self.most_flops)}")
        if parameters > self.most_parameters:
            most = format_count(self.most_parameters)
            too_much.append(f"{format_count(parameters)} parameters, where at most {most}")
        why_not = f"it has {' and '.join(too_much)} may be" if too_much else ""
        served = Served(flops=self.images * image + self.texts * text, why_not=why_not)
        return served, max(image / self.most_flops, parameters / self.most_parameters)


def tower_parameters(architecture: Architecture) -> int:
    """Return the parameters of both towers with their projections."""
    tower, costs = architecture.image_tower(1.0), architecture.costs
    text = costs.text_tower(costs.context_length)
    return tower.trunk.parameters + tower.projection.parameters + text.parameters
