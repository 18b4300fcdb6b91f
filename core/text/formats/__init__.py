"""Conversations as token ids, one file a format; core.text.dialogue chooses between them."""
