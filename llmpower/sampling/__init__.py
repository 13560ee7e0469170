"""Reading power: the only access to the C sampler, and the devices behind it."""

from llmpower.sampling.calibration import Calibration, calibrate, with_periods
from llmpower.sampling.calibrator import Calibrator, read_calibrations, write_calibrations
from llmpower.sampling.sampler import MAX_READ_SHARE, SAMPLE_DTYPE, Backend, Sampler, monotonic_ns
from llmpower.sampling.simulator import library_without, simulated_library, simulation, true_energy_j
from llmpower.sampling.statistics import Channel, SamplerStatistics
from llmpower.sampling.statuses import EPOCH, WILD, ZERO, describe_status

__all__ = [
    "EPOCH",
    "MAX_READ_SHARE",
    "SAMPLE_DTYPE",
    "WILD",
    "ZERO",
    "Backend",
    "Calibration",
    "Calibrator",
    "Channel",
    "Sampler",
    "SamplerStatistics",
    "calibrate",
    "describe_status",
    "library_without",
    "monotonic_ns",
    "read_calibrations",
    "simulated_library",
    "simulation",
    "true_energy_j",
    "with_periods",
    "write_calibrations",
]
