"""What shows FishNet at work without any download: data, configs, the demonstration."""

from pathlib import Path

CONFIGS = Path(__file__).resolve().parent / 'configs'
