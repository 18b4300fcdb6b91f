"""Ours against `transformers` and llama.cpp on the CPU: `python -m tests.peers --help`."""
