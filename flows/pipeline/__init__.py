"""Params, the stages that follow from them, and dvc.yaml."""
