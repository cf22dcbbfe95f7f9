"""Published results that tests read."""

from pathlib import Path

from tests.root import ROOT

DATA = Path(__file__).parent / "data"  # sources and licence: its README.md

# The points of Hoffmann et al. 2022, figure 4, as extracted by Besiroglu et al. 2024
# (data/svg_extracted_data.csv of epoch-research/analyzing-chinchilla), have no stated licence and are
# therefore not in this repository.
CHINCHILLA = ROOT.parent / "shared" / "data" / "epoch_chinchilla_svg_extracted.csv"
