"""Fitting measurements that no memory holds: Parquet data sets, read once, batch by batch.

A batch becomes sums (:mod:`~llmpower.modelling.rows.tally`) and is forgotten, so memory is that of a batch and of the
sums, however many rows there are. The sums of portions add up, so any number of workers may read portions of their own.
What needs all rows at once (comparing trials with each other, Huber's weights, residual plots) is for tables.
"""

from __future__ import annotations

from llmpower.modelling.streaming.dataset import Dataset, open_datasets
from llmpower.modelling.streaming.fitting import Streamed, fit_datasets
from llmpower.modelling.streaming.scanning import Job

__all__ = ["Dataset", "Job", "Streamed", "fit_datasets", "open_datasets"]
