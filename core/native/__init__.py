"""Our own compiled kernels for the CPU: built on the user's machine for its processor, never required."""
