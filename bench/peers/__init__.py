"""The gateway beside nginx and other gateways: CPU, latency, lateness, memory, start."""
