"""The request path: /v1/chat/completions, and the stages that the other operations share."""
