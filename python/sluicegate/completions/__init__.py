"""/v1/completions: the older text endpoint, with the stages of chat."""
