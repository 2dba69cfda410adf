"""The configuration: one TOML file, overridden by the environment, overridden by flags. Frozen values; nothing else is read.

It knows the words of the contract and says exactly which of them this version does not offer yet. It opens no destination
and reads no key.
"""

from snapferry.config.destinations import parse_destination
from snapferry.config.jobs import JobConfig, JobsFile, load_jobs
from snapferry.config.places import FILE_NAME, KEY_FILE_NAME, find_config, new_config_path
from snapferry.config.placing import PlacementConfig, VolumePlacement
from snapferry.config.plugins import PluginConfig, load_plugins
from snapferry.config.reading import load_config, new_config
from snapferry.config.units import format_size, parse_rate, parse_size
from snapferry.config.values import (
    Config,
    DestinationConfig,
    EngineConfig,
    Price,
    RepositoryConfig,
    Setting,
)
from snapferry.config.writing import write_config

__all__ = [
    "FILE_NAME",
    "KEY_FILE_NAME",
    "Config",
    "DestinationConfig",
    "EngineConfig",
    "JobConfig",
    "JobsFile",
    "PlacementConfig",
    "PluginConfig",
    "Price",
    "RepositoryConfig",
    "Setting",
    "VolumePlacement",
    "find_config",
    "format_size",
    "load_config",
    "load_jobs",
    "load_plugins",
    "new_config",
    "new_config_path",
    "parse_destination",
    "parse_rate",
    "parse_size",
    "write_config",
]
