"""The HTTP side of the gateway: what comes in, and what goes out."""
