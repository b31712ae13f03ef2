"""/v1/embeddings, with the stages of chat."""
