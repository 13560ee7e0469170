"""The one loop: drain samples, join them with spans, store the joules, publish a snapshot.

One thread does all of it, so that nothing here is locked; the sampler's C thread and the scrapes have theirs, and meet
this one only at the ring and at the snapshot. It loads neither torch, pandas, scipy nor statsmodels.
"""
