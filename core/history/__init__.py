"""Conversations in SQLite: saved while they grow, listed, searched, resumed. No torch."""
