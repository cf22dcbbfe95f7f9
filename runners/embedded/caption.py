"""Captions of the embedded pool: templates at three levels of detail, all words lower case."""

from collections.abc import Sequence

from runners.embedded.bank import Bank

# The second half omits the background, as a zero-shot prompt does.
ONE_THING = (
    "{thing} on {a_tint} background",
    "a picture of {thing} on {tint}",
    "an image of {thing} on {a_tint} background",
    "a drawing of {thing} on {tint} paper",
    "{tint} background with {thing}",
    "{thing}",
    "a picture of {thing}",
    "a photo of {thing}",
    "an image of {thing}",
    "a drawing of {thing}",
)

# Shorter templates, so that two names of three words still fit into 16 tokens.
TWO_THINGS = (
    "{thing} and {other} on {a_tint} background",
    "a picture of {thing} and {other} on {tint}",
    "{thing} next to {other} on {tint} paper",
)

MEDIUM = (
    "something {tag}",
    "a picture with the word {tag}",
    "{tag} sticker",
    "my {tag} picture",
    "{tag} clip art for free",
)

VAGUE = (
    "some {category} thing",
    "a nice {category} picture",
    "{category} sticker",
    "my favourite {category} image",
)

ZERO_SHOT = ("a {c}", "a picture of a {c}", "a photo of a {c}", "an image of a {c}", "a drawing of a {c}")
"""Templates for zero-shot classification, with ``{c}`` for the class name, as CLIP_benchmark writes them."""


def with_article(words: str) -> str:
    """Prepend the indefinite article: ``dog`` → ``a dog``, ``orange`` → ``an orange``."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def full_caption(bank: Bank, things: Sequence[int], tint: str, draw: float) -> str:
    """Name every thing in the scene and its tint; ``draw`` in [0, 1) chooses the template."""
    templates = ONE_THING if len(things) == 1 else TWO_THINGS
    named = [with_article(bank[thing].name) for thing in things]
    return _choose(templates, draw).format(
        thing=named[0], other=named[-1], tint=tint, a_tint=with_article(tint)
    )


def medium_caption(bank: Bank, thing: int, tag_draw: float, draw: float) -> str:
    """Give one tag of the thing; the draws, in [0, 1), choose the tag and the template."""
    return _choose(MEDIUM, draw).format(tag=_choose(bank[thing].tags, tag_draw))


def vague_caption(bank: Bank, thing: int, draw: float) -> str:
    """Give only the thing's category; ``draw`` in [0, 1) chooses the template."""
    return _choose(VAGUE, draw).format(category=bank[thing].category)


def _choose(options: Sequence[str], draw: float) -> str:
    return options[int(draw * len(options))]
