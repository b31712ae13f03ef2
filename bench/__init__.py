"""Measurements: beside the upstream called directly (locust) and beside other gateways (peers)."""
