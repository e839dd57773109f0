"""Ingest: the user's manifests in, checked rows for each data role out, with a leak audit between them."""
