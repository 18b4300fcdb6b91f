"""The terminal interface of llama-tui. Never imports torch."""
