"""Locust scenarios, each against the upstream directly and through the gateway."""
