import json
import os

import nibabel as nib
import numpy as np
import pytest
from data import head, save

from bundle.bids import check_derivatives, find_scans
from bundle.errors import InputError
from bundle.job import enhance


@pytest.fixture
def dataset(tmp_path):
    """Two people: one with a session and two contrasts, one without; files of other kinds between them."""
    root = tmp_path / "my data"
    for name in (
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz",
        "sub-02/anat/sub-02_acq-mprage_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_part-phase_T1w.nii.gz",
        "derivatives/other/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
        "sourcedata/sub-03/anat/sub-03_T1w.nii.gz",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        save(root / name, head((20, 22, 18)))
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.9.0"}')
    (root / "T1w.json").write_text('{"MagneticFieldStrength": 3, "PatientName": "Quaxolotl"}')
    (root / "sub-02" / "anat" / "sub-02_acq-mprage_run-1_T1w.json").write_text('{"MagneticFieldStrength": 1.5}')
    return root


def test_t1w_and_t2w_of_the_raw_data_are_found_with_their_inherited_sidecars(dataset):
    found = [(path.name, folder, acquisition) for path, folder, acquisition in find_scans(dataset)]
    assert found == [
        ("sub-01_ses-a_T1w.nii.gz", "sub-01/ses-a/anat", {"MagneticFieldStrength": 3}),
        ("sub-01_ses-a_T2w.nii.gz", "sub-01/ses-a/anat", {}),
        ("sub-02_acq-mprage_run-1_T1w.nii.gz", "sub-02/anat", {"MagneticFieldStrength": 1.5}),
    ]


@pytest.mark.parametrize(
    ("entities", "count"),
    [("sub-01", 2), ("T2w", 1), ("sub-01_ses-a_T1w", 1), ("acq-mprage", 1), ("sub-02,run-1", 1)],
)
def test_entities_choose(dataset, entities, count):
    assert len(find_scans(dataset, entities)) == count


def test_entities_that_nothing_has_are_refused(dataset):
    with pytest.raises(InputError, match="no T1w or T2w volume with sub-09 in this BIDS data set"):
        find_scans(dataset, "sub-09")


def test_results_are_a_derivatives_data_set_and_a_second_run_skips_them(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = dataset / "derivatives" / "spcdd"
    enhance("my data", str(out))
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    stems = ("sub-01/ses-a/anat/sub-01_ses-a_desc-superres_T1w", "sub-01/ses-a/anat/sub-01_ses-a_desc-superres_T2w")
    stems += ("sub-02/anat/sub-02_acq-mprage_run-1_desc-superres_T1w",)
    assert files == sorted(["dataset_description.json", *(s + e for s in stems for e in (".json", ".nii.gz"))])
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "spcdd"
    assert os.path.samefile(out / description["DatasetLinks"]["raw"], dataset)
    sidecar = json.loads((out / f"{stems[1]}.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz"]
    assert sidecar["Modality"] == "T2w"
    from bids import BIDSLayout

    layout = BIDSLayout(out, is_derivative=True, validate=True)
    assert len(layout.get(desc="superres", suffix=["T1w", "T2w"], extension=".nii.gz")) == 3
    capsys.readouterr()
    enhance("my data", str(out))
    assert "3 of 3 volumes: done before, skipped" in capsys.readouterr().out


def test_results_never_go_among_raw_scans(dataset):
    with pytest.raises(SystemExit, match="choose another output folder, such as derivatives/spcdd"):
        enhance(str(dataset), str(dataset))
    with pytest.raises(InputError, match="not the description"):
        (dataset / "x").mkdir()
        (dataset / "x" / "dataset_description.json").write_text("{")
        check_derivatives(dataset / "x")


def test_a_data_set_with_links_in_circles_and_links_to_nowhere_is_read(dataset):
    (dataset / "sub-01" / "loop").symlink_to(dataset)
    lost = dataset / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    lost.symlink_to(dataset / ".git" / "annex" / "gone")
    names = [path.name for path, *_ in find_scans(dataset)]
    assert names.count("sub-01_ses-a_T1w.nii.gz") == 1 and "sub-02_T2w.nii.gz" in names
    with pytest.raises(SystemExit, match=r"sub-02_T2w.nii.gz: no such file \(a link to something that is not here\)"):
        enhance(str(dataset), str(dataset / "derivatives" / "x"), series="T2w_sub-02")


def test_a_broken_description_is_refused(tmp_path):
    (tmp_path / "dataset_description.json").write_text("not json")
    with pytest.raises(InputError, match="cannot be read as a BIDS data set"):
        find_scans(tmp_path)


def test_an_oblique_scan_keeps_its_place(dataset):
    out = dataset / "derivatives" / "x"
    enhance(str(dataset), str(out), series="sub-02")
    result = nib.load(out / "sub-02" / "anat" / "sub-02_acq-mprage_run-1_desc-superres_T1w.nii.gz")
    assert np.allclose(result.affine @ [-0.5, -0.5, -0.5, 1], np.array([-0.5, -0.5, -0.5, 1]))
