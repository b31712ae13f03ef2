"""Keys of clients: who is calling."""
