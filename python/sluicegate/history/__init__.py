"""Conversations that the gateway keeps for assistants: what came before, and what is added."""
