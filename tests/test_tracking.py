import pytest
from monai.bundle import ConfigParser

from bundle.tracking import name_saved_config


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("my run + '/config_20260101_000000.json'", "my run/config_20260101_000000.json"),  # MONAI's slip
        ("$@folder + '/config_20260101_000000.json'", "runs/config_20260101_000000.json"),
        ("mine.json", "mine.json"),
        (None, None),
    ],
)
def test_the_saved_config_is_where_the_tracker_looks(given, wanted):
    parser = ConfigParser({"folder": "runs", "save_execute_config": given})
    parser.parse()
    name_saved_config(parser)
    assert parser.get_parsed_content("save_execute_config") == wanted
