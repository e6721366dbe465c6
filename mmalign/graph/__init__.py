"""From content and interactions to a graph: neighbours, typed graph, operators and layers.

Import from the modules: ``knn`` needs no torch, ``build`` loads PyG only when it is called.
"""

from __future__ import annotations
