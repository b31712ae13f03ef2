"""Models: which names a client may ask for, and who serves them."""
