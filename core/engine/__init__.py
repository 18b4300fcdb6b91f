"""Where checkpoint, model, text and sampling meet, and the thread that runs them."""
