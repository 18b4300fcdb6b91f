"""The three lanes, each in a file of its own: to CUDA, to the simulated device, and from disk to the CPU."""

from core.weights.lane_cuda import CudaLane
from core.weights.lane_disk import DiskLane
from core.weights.lane_sim import SimulatedLane

__all__ = ["CudaLane", "DiskLane", "SimulatedLane"]
