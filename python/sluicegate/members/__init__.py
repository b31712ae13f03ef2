"""People, their roles, and what they may manage."""
