"""What a request has used."""
