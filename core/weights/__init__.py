"""Where the bytes of a model live and how they move. Knows no conversations."""
