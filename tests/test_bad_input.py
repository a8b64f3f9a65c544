"""The table of bad inputs: each row is one error in one line, a status that is not zero, and a clean output folder."""

import gzip
import json
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from data import head, save
from scipy.spatial.transform import Rotation

from bundle.job import enhance

GOOD = head((20, 22, 24))


def _patch(path, start, content, volume=GOOD):
    """A good NIfTI with some bytes of its header replaced; gzipped where the name says so."""
    image = nib.Nifti1Image(volume, np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(np.eye(4), 0)
    data = bytearray(image.to_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))


def _floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def _shape(*values):
    return struct.pack(f"<{len(values) + 1}h", len(values), *values)


def _bomb(path):
    """A gzip of a few hundred kilobytes that claims, and holds the beginning of, 100 GB."""
    header = bytearray(nib.Nifti1Image(np.zeros((16, 16, 16)), np.eye(4)).to_bytes()[:352])
    header[40:48] = _shape(2300, 2300, 2300)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"\0" * 2**20
    packed = [packer.compress(part) for part in (bytes(header), *[block] * 300)]
    path.write_bytes(b"".join(packed) + packer.flush())


def _big_bomb(path):
    """One that could really hold as much: only the memory says no."""
    _bomb(path)
    with open(path, "r+b") as file:
        file.truncate(120 * 2**20)


def _endless(path):
    """A gzip with much more in it than its header says."""
    content = nib.Nifti1Image(GOOD, np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(content + bytes(80 * 2**20)))


def _corrupt(path):
    save(path, GOOD)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _wrong_checksum(path):
    save(path, GOOD)
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(content)


def _truncated(path):
    save(path, GOOD)
    path.write_bytes(path.read_bytes()[:-3000])


def _forms_apart(path):
    image = nib.Nifti1Image(GOOD, np.eye(4))
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    image.set_sform(np.eye(4), 1)
    nib.save(image, path)


def _sheared(path):
    affine = np.eye(4)
    affine[0, 1] = 0.05
    save(path, GOOD, affine, (0, 1))


def _with(value, dtype=np.float32):
    volume = GOOD.astype(dtype)
    volume[3, 4, 5] = value
    return volume


def _nrrd(path, **fields):
    lines = {"type": "float", "dimension": "3", "sizes": "20 22 24", "encoding": "raw", "endian": "little"}
    lines |= {"space": "left-posterior-superior", "space directions": "(1,0,0) (0,1,0) (0,0,1)"} | fields
    text = "NRRD0004\n" + "".join(f"{k.replace('_', ' ')}: {v}\n" for k, v in lines.items()) + "\n"
    path.write_bytes(text.encode() + GOOD.transpose().tobytes())


def _mha(path, **fields):
    lines = {"ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False"}
    lines |= {"ElementSpacing": "1 1 1", "DimSize": "20 22 24", "ElementType": "MET_FLOAT"}
    lines |= {"ElementDataFile": "LOCAL"} | fields
    text = "".join(f"{k} = {v}\n" for k, v in lines.items() if k != "ElementDataFile")
    path.write_bytes(text.encode() + f"ElementDataFile = {lines['ElementDataFile']}\n".encode() + GOOD.tobytes())


def _vector(path):
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([GOOD] * 3, -1), isVector=True), str(path))


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
SATURATED = np.where(GOOD > 100, 255, 7).astype(np.uint8)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [9, 8, 7], degrees=True).as_matrix()

TABLE = {
    "corrupt gzip": ("a.nii.gz", _corrupt, "cannot be read as an image"),
    "gzip with a wrong checksum": ("a.nii.gz", _wrong_checksum, "CRC check failed"),
    "gzip of something else": ("a.nii.gz", lambda p: p.write_bytes(gzip.compress(b"x" * 999)), "no NIfTI header"),
    "truncated gzip": ("a.nii.gz", _truncated, "cannot be read as an image .*ended before"),
    "truncated file": ("a.nii", _truncated, "truncated"),
    "truncated header": ("a.nii", lambda p: p.write_bytes(b"\\\1\0\0" + bytes(50)), "no NIfTI header"),
    "empty": ("a.nii", lambda p: p.touch(), "the file is empty"),
    "header claims too much": (
        "a.nii",
        lambda p: _patch(p, 40, _shape(999, 999, 999)),
        "header claims 999",
    ),
    "header claims too little": ("a.nii.gz", _endless, "far more bytes than its header says"),
    "zip bomb": ("a.nii.gz", _bomb, "header claims 2300 x 2300 x 2300 voxels"),
    "zip bomb that fits its size": ("a.nii.gz", _big_bomb, "of memory|can't hold"),
    "negative dimension": ("a.nii", lambda p: _patch(p, 40, _shape(20, -22, 24)), "are not those of a volume"),
    "no dimension": ("a.nii", lambda p: _patch(p, 40, _shape()), "are not those of a volume"),
    "unknown type": ("a.nii", lambda p: _patch(p, 70, b"\x0f\x27"), "unknown type"),
    "voxels nowhere": ("a.nii", lambda p: _patch(p, 108, _floats(np.nan)), "said to begin at byte nan"),
    "voxels far away": ("a.nii", lambda p: _patch(p, 108, _floats(1e12)), "said to begin at byte 1e"),
    "zero spacing": ("a.nii", lambda p: _patch(p, 80, _floats(1, 0, 1)), "voxel size 1 x 0 x 1 mm; every one must"),
    "negative spacing": ("a.nii", lambda p: _patch(p, 80, _floats(1, -1, 1)), "voxel size 1 x -1 x 1 mm"),
    "spacing that is no number": ("a.nii", lambda p: _patch(p, 80, _floats(1, np.nan, 1)), "voxel size 1 x nan x 1"),
    "huge spacing": ("a.nii", lambda p: save(p, GOOD, np.diag([40.0, 1, 1, 1])), "outside 0.1 to 15"),
    "affine of NaN": ("a.nii", lambda p: _patch(p, 256, _floats(np.nan, np.inf, 0)), "affine holds NaN|cannot be read"),
    "qform and sform disagree": ("a.nii", _forms_apart, "qform and sform .codes 1 and 1. lie 38 voxels apart"),
    "shear": ("a.nii", _sheared, "the affine is sheared, axes are 2.9 degrees"),
    "NaN": ("a.nii", lambda p: save(p, _with(np.nan)), "1 voxels are NaN or Inf"),
    "infinity": ("a.nii", lambda p: save(p, _with(-np.inf)), "1 voxels are NaN or Inf"),
    "huge intensities": ("a.nii", lambda p: save(p, _with(1e35)), "values up to 1e.35; at most 1e.30"),
    "huge double intensities": ("a.nii", lambda p: save(p, _with(1e300, np.float64)), "values up to 1e.300"),
    "constant": ("a.nii", lambda p: save(p, np.ones_like(GOOD)), "about the same value"),
    "saturated": ("a.nii", lambda p: save(p, SATURATED), "of the foreground has the largest value 255"),
    "colours": ("a.nii", lambda p: save(p, np.zeros((20, 20, 20), RGB)), "voxels are colours"),
    "complex": ("a.nii", lambda p: save(p, GOOD.astype(np.complex64)), "voxels are complex numbers"),
    "time series": ("a.nii", lambda p: save(p, np.stack([GOOD] * 3, -1)), "4 axes; a single 3D volume"),
    "one slice": ("a.nii", lambda p: save(p, GOOD[..., 0]), "2 axes"),
    "few slices": ("a.nii", lambda p: save(p, GOOD[..., :9]), "at least 16"),
    "pair of files": ("a.nii", lambda p: _patch(p, 344, b"ni1\0"), "voxels are in another file"),
    "NRRD: vector": ("a.nrrd", _vector, "3 values per voxel"),
    "MHA: vector": ("a.mha", _vector, "3 values per voxel"),
    "NRRD: voxels elsewhere": ("a.nrrd", lambda p: _nrrd(p, data_file="/etc/passwd"), "voxels are in another file"),
    "MHA: voxels elsewhere": ("a.mha", lambda p: _mha(p, ElementDataFile="/etc/passwd"), "voxels are in another file"),
    "NRRD: lies about its size": ("a.nrrd", lambda p: _nrrd(p, sizes="2000 2200 2400"), "header claims 2000"),
    "MHA: lies about its size": ("a.mha", lambda p: _mha(p, DimSize="2000 2200 2400"), "header claims 2000"),
    "NRRD: zero spacing": (
        "a.nrrd",
        lambda p: _nrrd(p, **{"space directions": "(0,0,0) (0,1,0) (0,0,1)"}),
        "voxel size 0 x 1 x 1 mm",
    ),
    "MHA: zero spacing": ("a.mha", lambda p: _mha(p, ElementSpacing="1 0 1"), "voxel size 1 x 0 x 1 mm"),
    "MHA: negative spacing": ("a.mha", lambda p: _mha(p, ElementSpacing="1 -1 1"), "voxel size 1 x -1 x 1 mm"),
    "NRRD: text": ("a.nrrd", lambda p: p.write_text("hello"), "cannot be read as an image"),
    "MHA: text": ("a.mha", lambda p: p.write_text("hello"), "cannot be read as an image"),
    "DICOM: header only": ("a.dcm", lambda p: p.write_bytes(bytes(128) + b"DICM"), "cannot be read as a DICOM image"),
    "another kind of file": ("a.txt", lambda p: p.write_text("hello"), "not a volume by its name"),
    "nothing": ("a.nii", lambda p: None, "no such file or folder"),
    "an empty folder": ("a.nii", lambda p: p.mkdir(), "no volume in this folder"),
    "link in circles": ("a.nii", lambda p: p.symlink_to(p), "no such file or folder|cannot be looked at"),
}


@pytest.mark.parametrize("row", TABLE)
def test_bad_input_is_one_error_in_one_line_and_leaves_nothing(tmp_path, row):
    name, make, words = TABLE[row]
    path, out = tmp_path / name, tmp_path / "out"
    make(path)
    with pytest.raises(SystemExit, match=words) as ended:
        enhance(str(path), str(out))
    message = str(ended.value)
    assert ended.value.code not in (0, None)
    assert message.startswith("error: ") and message.count("error:") == 1 and "\n" not in message
    assert name in message and len(message) < 400 and "Traceback" not in message
    assert not out.exists() or not list(out.iterdir())


GOOD_ROWS = {
    "negative intensities": (lambda p: save(p, GOOD - 900), ""),
    "large intensities": (lambda p: save(p, GOOD * 1e25), ""),
    "tiny intensities": (lambda p: save(p, GOOD * 1e-25), ""),
    "8-bit, a little saturated": (
        lambda p: save(p, (np.clip(GOOD / np.percentile(GOOD, 98), 0, 1) * 234 + 20).astype(np.uint8)),
        "of the foreground is saturated at 254",
    ),
    "forms of different spaces": (
        lambda p: nib.save(_two_spaces(), p),
        "qform and sform (codes 1 and 4) lie 10 voxels apart; the sform was used",
    ),
    "no forms": (lambda p: save(p, GOOD, codes=(0, 0)), "neither qform nor sform"),
    "big-endian": (lambda p: nib.save(nib.Nifti1Image(GOOD, np.eye(4), nib.Nifti1Header(endianness=">")), p), ""),
    "NIfTI-2": (lambda p: nib.save(nib.Nifti2Image(GOOD, OBLIQUE), p), ""),
    "double precision": (lambda p: save(p, GOOD.astype(np.float64)), ""),
    "a time axis of one": (lambda p: save(p, GOOD[..., None, None]), ""),
}


def _two_spaces():
    image = nib.Nifti1Image(GOOD, np.eye(4))
    image.set_qform(np.eye(4), 1)
    moved = np.eye(4)
    moved[0, 3] = 10
    image.set_sform(moved, 4)
    return image


def test_what_is_only_unusual_is_done_with_a_warning_where_it_matters(tmp_path):
    (tmp_path / "in").mkdir()
    for row, (make, _) in GOOD_ROWS.items():
        make(tmp_path / "in" / f"{row}_T1w.nii")
    enhance(str(tmp_path / "in"), str(tmp_path / "out"), contrast="input")
    for row, (_, words) in GOOD_ROWS.items():
        warnings = json.loads((tmp_path / "out" / f"{row}_T1w_desc-superres.json").read_text())["Warnings"]
        assert (words in "".join(warnings)) if words else warnings == [], row
        result = nib.load(tmp_path / "out" / f"{row}_T1w_desc-superres.nii.gz")
        source = nib.load(tmp_path / "in" / f"{row}_T1w.nii")
        assert np.isfinite(result.get_fdata()).all()
        assert np.isclose(result.get_fdata().mean(), np.asarray(source.dataobj).mean(), rtol=0.05), row
    spaces = nib.load(tmp_path / "out" / "forms of different spaces_T1w_desc-superres.nii.gz")
    assert int(spaces.header["qform_code"]) == int(spaces.header["sform_code"]) == 4
