"""What ``monai.bundle run --tracking`` gets wrong about these configs, put right."""

from monai.bundle import ConfigItem, ConfigParser

_SAVED = "save_execute_config"


def name_saved_config(parser: ConfigParser) -> None:
    """Point the trackers at the file in which MONAI has saved the config of the run.

    MONAI names that file by adding `` + '/config_DATE.json'`` to ``output_dir``. That is an expression only where
    ``output_dir`` is one; a plain folder, such as any from the command line, becomes a path that is not there.

    Args:
        parser: of a workflow that is about to begin.
    """
    text = parser.config.get(_SAVED)
    if isinstance(text, str) and not text.startswith("$") and " + '/config_" in text:
        folder, _, name = text.partition(" + '")
        path = folder + name.rstrip("'")
        parser.config[_SAVED] = path
        parser.ref_resolver.items[_SAVED] = ConfigItem(config=path, id=_SAVED)  # where it has been parsed before
