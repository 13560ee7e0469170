"""The folder that ``llmpower run`` puts on PYTHONPATH, for the ``sitecustomize`` in it."""
