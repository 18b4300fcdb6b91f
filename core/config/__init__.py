"""The user's config.toml: what it says, with a line for whatever is wrong, and how it is written."""
