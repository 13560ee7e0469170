"""Reading power: the only door to the C sampler, and the devices behind it."""

from llmpower.sampling.calibration import Calibration, calibrate
from llmpower.sampling.sampler import SAMPLE_DTYPE, Backend, Channel, Sampler, SamplerStatistics, monotonic_ns
from llmpower.sampling.simulator import simulated_library, simulation, true_energy_j

__all__ = [
    "SAMPLE_DTYPE",
    "Backend",
    "Calibration",
    "Channel",
    "Sampler",
    "SamplerStatistics",
    "calibrate",
    "monotonic_ns",
    "simulated_library",
    "simulation",
    "true_energy_j",
]
