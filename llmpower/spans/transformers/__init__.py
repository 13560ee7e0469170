"""Every request that transformers works on becomes a span, with no change to the program that makes it.

:func:`instrument` puts methods of ours in the place of a few of the library's. ``generate`` calls are followed in
``call.py`` and counted in ``counting.py``; requests of continuous batching, which a thread of the library's own works
on, in ``batching.py``; ``placement.py`` says where a model is and what it is called. This package and ``profiling``
are the only ones that import torch.
"""

from __future__ import annotations

from llmpower.spans.transformers.instrumenting import instrument, uninstrument
from llmpower.spans.transformers.placement import model_name_of

__all__ = ["instrument", "model_name_of", "uninstrument"]
