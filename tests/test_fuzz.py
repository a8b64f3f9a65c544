"""Readers are given damaged files: what comes out is a volume or one line, and nothing else."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from data import head, save
from dicom_data import CANARY, write_classic, write_multiframe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.dicom import find_series
from bundle.errors import InputError
from bundle.io import read_volume
from bundle.records import find_records

KINDS = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "classic", "multi.dcm")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A sound file of every kind, as bytes."""
    folder = tmp_path_factory.mktemp("seeds")
    volume = head((17, 16, 18))
    image = sitk.GetImageFromArray(volume)
    save(folder / "a.nii", volume)
    (folder / "a.nii.gz").write_bytes(gzip.compress((folder / "a.nii").read_bytes(), mtime=0))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(folder / name))
    write_multiframe(folder / "multi.dcm", volume.astype(np.uint16))
    write_classic(folder / "classic", volume.astype(np.uint16))
    contents = {name: (folder / name).read_bytes() for name in KINDS if name != "classic"}
    return contents | {"classic": [p.read_bytes() for p in sorted((folder / "classic").iterdir())]}


edits = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 2000), st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("set"), st.integers(0, 20_000), st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("cut"), st.integers(0, 20_000), st.just(b"")),
        st.tuples(st.just("drop"), st.integers(0, 2000), st.just(b"1234")),
        st.tuples(st.just("insert"), st.integers(0, 2000), st.binary(min_size=1, max_size=40)),
    ),
    min_size=1,
    max_size=4,
)


def _damage(content, changes):
    content = bytearray(content)
    for kind, where, what in changes:
        if kind == "set":
            content[where : where + len(what)] = what
        elif kind == "cut":
            del content[where:]
        elif kind == "drop":
            del content[where : where + len(what)]
        else:
            content[where:where] = what
    return bytes(content)


def _check(read):
    """What is read is a sound volume; what is refused is refused in one line that names nobody."""
    try:
        volume = read()
    except InputError as error:
        assert "\n" not in str(error) and CANARY not in str(error)
        return
    assert volume.ndim == 4 and volume.dtype == torch.float32 and min(volume.shape[1:]) >= 16
    assert volume.numel() < 2**24 and torch.isfinite(volume.affine).all()
    assert abs(np.linalg.det(volume.affine.numpy()[:3, :3])) > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, seeds, kind):
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(changes=edits, which=st.integers(0, 17))
    def run(changes, which):
        if kind != "classic":
            path = tmp_path / kind
            path.write_bytes(_damage(seeds[kind], changes))
            _check(lambda: read_volume(path))
            return
        for i, content in enumerate(seeds[kind]):
            (tmp_path / f"{i:02d}.dcm").write_bytes(_damage(content, changes) if i == which else content)
        found = find_series(Path(tmp_path))
        for series in found:
            _check(lambda series=series: read_volume(series.files))

    run()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    content=st.one_of(st.binary(max_size=700), st.binary(max_size=400).map(gzip.compress)), kind=st.sampled_from(KINDS)
)
def test_noise_is_refused(tmp_path, content, kind):
    path = tmp_path / kind.replace("classic", "a.dcm")
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_volume(path)
    assert "\n" not in str(error.value)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    content=st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=9)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["testing", "image", "x"]), inner, max_size=3)
        ),
    )
)
def test_any_json_is_a_datalist_or_refused(tmp_path, content):
    import json

    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    try:
        records = find_records(str(path))
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert records and all(Path(r.files[0]).is_relative_to(tmp_path) for r in records)
