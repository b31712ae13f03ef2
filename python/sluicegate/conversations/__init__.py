"""Conversations as OpenAI's API has them: items that responses read and add to."""
