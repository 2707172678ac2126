"""The folder that an operator copies to a model server."""
