"""Configs: found by name, given FishNet as the backbone, and checked."""

import mmfish.whole_stack  # noqa: F401
