"""Configs: found by name, given FishNet as the backbone, and checked."""
