import json
import os

import nibabel as nib
import numpy as np
import pytest
from data import head, save
from dicom_data import write_classic, write_multiframe

from bundle.errors import InputError
from bundle.job import enhance
from bundle.records import find_records, shown_options

VOLUME = head((20, 22, 18)).astype(np.uint16)


def _names(*arguments):
    return [record.result() for record in find_records(*map(str, arguments))]


def test_a_folder_of_volumes_and_dicom_gives_both(tmp_path):
    save(tmp_path / "b.nii", head((20, 20, 20)))
    write_classic(tmp_path, VOLUME, number=2)
    assert _names(tmp_path) == ["b_desc-superres.nii.gz", f"{tmp_path.name}_series-2_desc-superres.nii.gz"]
    assert _names(tmp_path, "2") == [f"{tmp_path.name}_series-2_desc-superres.nii.gz"]


def test_results_of_a_tree_of_series_lie_as_the_series_do(tmp_path):
    write_classic(tmp_path / "p1" / "s", VOLUME, number=2)
    write_classic(tmp_path / "p2", VOLUME, number=2)
    write_multiframe(tmp_path / "p2" / "m.dcm", VOLUME, number=9)
    assert _names(tmp_path) == [
        "p1/s/s_series-2_desc-superres.nii.gz",
        "p2/p2_series-2_desc-superres.nii.gz",
        "p2/p2_series-9_desc-superres.nii.gz",
    ]


def test_one_multi_frame_file_is_a_volume_and_one_classic_image_is_not(tmp_path):
    path = write_multiframe(tmp_path / "a" / "m", VOLUME)
    write_multiframe(tmp_path / "a" / "other", VOLUME, number=5)
    assert _names(path) == ["a_series-4_desc-superres.nii.gz"]
    image = sorted(write_classic(tmp_path / "b", VOLUME).iterdir())[0]
    with pytest.raises(InputError, match="one image of a series of 18; name its folder"):
        find_records(str(image))


def test_series_of_something_that_has_none_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", head((20, 20, 20)))
    with pytest.raises(InputError, match="--series 3 is for DICOM, BIDS and datalists"):
        find_records(str(path), "3")


@pytest.mark.parametrize(
    ("content", "series", "names"),
    [
        ({"testing": ["a/x.nii", {"image": "y.nii"}], "training": [{"image": "z.nii"}]}, "all", ["a/x", "y"]),
        ({"training": [{"image": "z.nii", "label": "l.nii"}], "name": "t"}, "all", ["z"]),
        ({"training": [{"image": ["z.nii"]}], "testing": ["y.nii", "./y.nii"]}, "training", ["z"]),
        ({"testing": ["y.nii", "./y.nii", "a/../y.nii"]}, "all", ["y"]),
    ],
)
def test_datalists_are_read_as_monai_writes_them(tmp_path, content, series, names):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    records = find_records(str(path), series)
    assert [r.result() for r in records] == [f"{n}_desc-superres.nii.gz" for n in names]
    assert all(r.files[0].startswith(str(tmp_path)) for r in records)


@pytest.mark.parametrize("bad", ["../secret.nii", "a/../../secret.nii", "/etc/secret.nii", "link/../../secret.nii"])
def test_paths_of_a_datalist_do_not_leave_its_root_unless_asked_to(tmp_path, bad):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("/usr/lib")
    path = tmp_path / "in" / "list.json"
    path.write_text(json.dumps({"testing": [bad]}))
    with pytest.raises(InputError, match="secret.nii leads out of .*/in; set --dataset_dir"):
        find_records(str(path))
    asked = find_records(str(path), "all", "/")
    assert asked[0].files[0].endswith("/secret.nii")


def test_dots_are_resolved_by_name_so_that_links_do_not_lead_out(tmp_path):
    (tmp_path / "link").symlink_to("/usr/lib")
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"testing": ["link/../x.nii"]}))
    (record,) = find_records(str(path))
    assert record.files == (str(tmp_path / "x.nii"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no section 'testing'"),
        ('{"a": 1}', "no section"),
        ('{"testing": [{"label": "x"}]}', "every item needs one 'image'"),
        ('{"testing": []}', "no images in it"),
        ('{"testing": [3]}', "every item needs one 'image'"),
    ],
)
def test_bad_datalists_are_refused(tmp_path, content, words):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=words):
        find_records(str(tmp_path / "list.json"))


def test_a_datalist_goes_through_the_main_job(tmp_path):
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / "x_T1w.nii.gz", head((20, 20, 20)))
    (tmp_path / "list.json").write_text('{"testing": [{"image": "a/x_T1w.nii.gz"}, {"image": "a/gone.nii"}]}')
    with pytest.raises(SystemExit, match="gone.nii +no such file"):
        enhance(str(tmp_path / "list.json"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "a" / "x_T1w_desc-superres.nii.gz").exists()


NAMES = ["with space", "-leading", "ünïcödé 脑", "new\nline", "tab\tand\x1b[31mred", "quote'\"$(x)`", "a{b}%s", "#@~"]


def test_odd_names_work_and_messages_stay_one_line(tmp_path, capfd):
    source = tmp_path / "in\nput"
    source.mkdir()
    for name in NAMES:
        save(source / f"{name}.nii.gz", head((20, 20, 20)))
    raw = os.fsencode(source) + b"/not-utf8-\xff.nii.gz"
    os.rename(save(tmp_path / "x.nii.gz", head((20, 20, 20))), raw)
    (source / "bad\n\x1b.nii").touch()
    with pytest.raises(SystemExit) as ended:
        enhance(str(source), str(tmp_path / "out\nput"))
    message = str(ended.value)
    lines = message.split("\n")
    assert lines[0] == "error: 1 of 10 volumes were refused" and lines[1].endswith("bad\\n\\x1b.nii  the file is empty")
    assert len(lines) == 3 and lines[2].startswith("This table: ")
    results = {p.name for p in (tmp_path / "out\nput").glob("*.nii.gz")}
    assert {f"{name}_desc-superres.nii.gz" for name in NAMES} <= results and len(results) == 9
    printed = "".join(capfd.readouterr())
    assert "\x1b" not in printed and "new\\nline.nii.gz -> " in printed
    assert np.isfinite(nib.load(tmp_path / "out\nput" / "new\nline_desc-superres.nii.gz").get_fdata()).all()


def test_circles_of_links_are_no_input(tmp_path):
    (tmp_path / "a.nii").symlink_to(tmp_path / "b.nii")
    (tmp_path / "b.nii").symlink_to(tmp_path / "a.nii")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    for name in ("a.nii", "self"):
        with pytest.raises(InputError, match="no such file or folder|cannot be looked at"):
            find_records(str(tmp_path / name))
    with pytest.raises(InputError, match="no volume in this folder"):
        find_records(str(tmp_path))


@pytest.mark.parametrize("source", ["x" * 5000, "nul\0byte"])
def test_impossible_names_are_refused_in_one_line(source):
    with pytest.raises(InputError) as error:
        find_records(source)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_uid_given_as_series_is_not_repeated_in_a_sidecar():
    assert shown_options({"series": "1.2.840.113619.2.5.1", "dataset_dir": "/home/me"}) == {"series": "by UID"}
    assert shown_options({"series": "3"}) == {"series": "3"}
