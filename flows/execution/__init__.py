"""A project and the execution of its stages."""
