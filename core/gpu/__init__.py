"""What a CUDA card computes with: Triton kernels that read packed weights as they lie, and what runs them.

Every kernel also runs in Triton's interpreter on the CPU, where it is tested. Only `launch` and what builds
on it know the kernels' arguments.
"""
