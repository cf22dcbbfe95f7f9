"""The sprite bank: 100 everyday things that can be distinguished at 32 pixels, drawn by several makers.

Makers, licences and attributions are in ``ATTRIBUTION.md`` beside this file.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

BANK_FILE = Path(__file__).parent / "bank.npz"
SPRITE_SIZE = 40
TRAINING, HELD_OUT, STYLE = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Words for one concept."""

    name: str
    category: str  # word in vague captions; near misses are drawn from the same category
    tags: tuple[str, ...]


# Each line holds the emoji that was drawn, by its name in the packages of the artwork (a record), the name in
# captions (at most three words), and single words that replace the name in less exact captions.
_LINES = {
    "animal": """
        dog face: dog: puppy pet hound
        cat face: cat: kitten pet whiskers
        lion: lion: mane savanna roar
        elephant: elephant: trunk tusks savanna
        panda: panda: bamboo china bear
        pig face: pig: farm piglet snout
        fox: fox: forest sly tail
        monkey: monkey: jungle ape climbing
    """,
    "bird": """
        baby chick: chick: baby farm yellow
        penguin: penguin: antarctica waddling polar
        owl: owl: night wise hooting
        duck: duck: pond mallard quack
    """,
    "sea": """
        octopus: octopus: tentacles ocean deep
        crab: crab: claws beach shell
        tropical fish: tropical fish: reef aquarium swimming
        shark: shark: teeth predator ocean
        spouting whale: whale: ocean giant spouting
    """,
    "creature": """
        frog: frog: pond toad hopping
        turtle: turtle: tortoise shell slow
        snake: snake: serpent hissing reptile
        snail: snail: slow shell garden
    """,
    "insect": """
        butterfly: butterfly: wings pretty fluttering
        lady beetle: ladybird: beetle spotted garden
        honeybee: bee: honey buzzing striped
        spider: spider: web eight scary
    """,
    "plant": """
        cactus: cactus: desert prickly dry
        rose: rose: valentine petals thorn
        sunflower: sunflower: summer seeds field
        palm tree: palm tree: tropical beach island
        evergreen tree: fir tree: forest pine evergreen
        four leaf clover: clover: lucky irish four
        mushroom: mushroom: fungus forest toadstool
    """,
    "fruit": """
        grapes: bunch of grapes: vineyard purple cluster
        watermelon: watermelon: summer slice juicy
        lemon: lemon: citrus sour yellow
        banana: banana: peel tropical yellow
        pineapple: pineapple: tropical hawaii spiky
        red apple: apple: orchard red crunchy
        strawberry: strawberry: berry red jam
    """,
    "vegetable": """
        avocado: avocado: guacamole toast stone
        eggplant: eggplant: aubergine purple glossy
        carrot: carrot: root orange crunchy
        ear of corn: corn cob: maize field grilled
    """,
    "food": """
        cheese wedge: piece of cheese: swiss dairy holes
        hamburger: hamburger: burger beef bun
        french fries: bag of fries: salty potato crispy
        pizza: pizza: slice italian pepperoni
        hot dog: hot dog: sausage mustard bun
        taco: taco: mexican tortilla spicy
        sushi: sushi: japanese rice raw
    """,
    "sweet": """
        doughnut: doughnut: glazed ring breakfast
        cookie: cookie: biscuit chip baked
        soft ice cream: ice cream: cone frozen vanilla
        birthday cake: birthday cake: candles celebration layers
        lollipop: lollipop: candy stick swirl
    """,
    "drink": """
        wine glass: glass of wine: grape evening tasting
        beer mug: mug of beer: ale pub foam
        glass of milk: glass of milk: dairy white cold
        hot beverage: cup of coffee: espresso steaming morning
    """,
    "vehicle": """
        bus: bus: passengers school public
        fire engine: fire engine: emergency ladder firefighters
        automobile: car: driving road automobile
        tractor: tractor: farm plough field
        bicycle: bicycle: bike cycling pedals
        locomotive: steam train: railway engine smoke
    """,
    "travel": """
        airplane: airplane: flight jet airport
        helicopter: helicopter: rotor chopper hovering
        rocket: rocket: space launch orbit
        sailboat: sailing boat: yacht wind lake
    """,
    "weather": """
        sun: sun: sunny bright daytime
        crescent moon: crescent moon: night lunar midnight
        rainbow: rainbow: colourful arc stripes
        cloud with rain: rain cloud: wet storm drizzle
        snowflake: snowflake: winter frozen crystal
        umbrella: umbrella: wet shelter parasol
    """,
    "music": """
        guitar: guitar: rock strings band
        trumpet: trumpet: brass jazz fanfare
        violin: violin: orchestra bow strings
        drum: drum: sticks beat marching
    """,
    "sport": """
        soccer ball: football: goal soccer kick
        basketball: basketball: hoop bounce court
        ping pong: ping pong bat: table paddle rally
        boxing glove: boxing glove: fight punch ring
    """,
    "clothing": """
        t-shirt: shirt: cotton casual sleeves
        jeans: pair of jeans: denim trousers blue
        dress: dress: fashion gown skirt
        crown: crown: king royal golden
        top hat: top hat: magician formal gentleman
    """,
    "tool": """
        hammer: hammer: nails carpenter pounding
        scissors: pair of scissors: cutting blades paper
        key: key: lock unlock door
        light bulb: light bulb: lamp electric idea
    """,
    "device": """
        camera: camera: lens photographer snapshot
        television: television: screen channel watching
        telephone: telephone: call dial ringing
        laptop: laptop: computer keyboard office
    """,
    "party": """
        balloon: balloon: floating helium string
        wrapped gift: gift: present ribbon box
        jack-o-lantern: pumpkin: halloween lantern carved
        trophy: trophy: winner champion prize
    """,
}


def _read(category: str, line: str) -> Words:
    _emoji, name, tags = (part.strip() for part in line.split(":"))
    return Words(name=name, category=category, tags=tuple(tags.split()))


CONCEPTS = tuple(
    _read(category, line) for category, lines in _LINES.items() for line in lines.strip().splitlines()
)
"""All concepts, by category; a concept's number (its class label) is its index here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sprite:
    """One drawing at two sizes, mode RGBa (premultiplied): 40 x 40 and, for two-sprite scenes, 20 x 20."""

    full: Image.Image
    half: Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """One concept: its words in captions, and its sprites."""

    name: str  # in captions and class names, such as ``bunch of grapes``
    category: str  # word in vague captions, such as ``fruit``
    tags: tuple[str, ...]  # single words that replace the name in captions of medium detail
    training: tuple[Sprite, ...]
    held_out: Sprite  # the rendition that never occurs in training
    style: Sprite  # by a maker whose artwork never occurs in training
    related: tuple[int, ...]  # numbers of the other concepts of the same category


Bank = tuple[Concept, ...]
"""All concepts; a concept's number (its class label) is its index here."""


@lru_cache(maxsize=1)
def load_bank() -> Bank:
    """Load the bank shipped with the project."""
    with np.load(BANK_FILE) as file:
        data = {name: file[name] for name in file.files}
    sprites = [_sprite(pixels) for pixels in data["sprites"]]

    def of(concept: int, use: int) -> tuple[Sprite, ...]:
        places = np.flatnonzero((data["concept"] == concept) & (data["used_for"] == use))
        return tuple(sprites[place] for place in places)

    return tuple(
        Concept(
            name=words.name,
            category=words.category,
            tags=words.tags,
            training=of(number, TRAINING),
            held_out=of(number, HELD_OUT)[0],
            style=of(number, STYLE)[0],
            related=tuple(
                other
                for other, others in enumerate(CONCEPTS)
                if others.category == words.category and other != number
            ),
        )
        for number, words in enumerate(CONCEPTS)
    )


def _sprite(pixels: np.ndarray) -> Sprite:
    full = Image.frombytes("RGBa", (SPRITE_SIZE, SPRITE_SIZE), pixels.tobytes())
    return Sprite(full=full, half=full.reduce(2))
