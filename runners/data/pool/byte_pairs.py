"""CLIP's byte-pair encoding: open_clip's tokenizer without the models of its package.

Those take 4 s to import, and a process that counts tokens needs none of them. Importing this module takes
2 s, because the tokenizer imports torch: import it where tokens are needed. Servers that workers are forked
from import it once for all of them (`runners.host.workers`).
"""

from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

_package: Any = find_spec("open_clip")
_spec: Any = PathFinder.find_spec("open_clip.tokenizer", _package.submodule_search_locations)
_module: Any = module_from_spec(_spec)
_spec.loader.exec_module(_module)

ENCODER: Any = _module.SimpleTokenizer()
"""The encoder of this process; ``encode`` returns the token ids of a text without start and end."""
