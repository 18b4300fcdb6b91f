"""The engine of llama-tui: checkpoints, model, sampling, worker. Never imports textual, never prints."""
