"""The management API: what a route declares, how one call runs, and the document that describes them all."""
