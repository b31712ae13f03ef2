"""Scores of answers: what they are made of, and what is remembered for them."""
