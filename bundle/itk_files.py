"""Reading NRRD and MetaImage files with ITK: their header is judged before their voxels are read."""

import re
from pathlib import Path

import itk
import numpy as np
from monai.data.image_reader import ITKReader

from .errors import InputError
from .geometry import check_grid
from .scan import Scan, check_size, squeezed


def read_itk(path: Path) -> Scan:
    """A NRRD or MetaImage file that holds its own voxels.

    Raises:
        InputError: several values per voxel, voxels in another file, a header that no brain volume has.
        RuntimeError: not readable at all.
    """
    _check_header(path)
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(str(path)))
    shape, affine = squeezed(array.shape), np.asarray(meta["affine"], dtype=np.float64)
    check_grid(shape, affine, str(path))
    return Scan(array.reshape(shape), affine, (1, 1), {})


def _check_header(path: Path) -> None:
    with open(path, "rb") as file:
        start = file.read(2**16)
    if start.startswith(b"NRRD"):
        text = start.split(b"\n\n")[0].split(b"\r\n\r\n")[0]
        other = re.search(rb"^data ?file:", text, re.M | re.I)
        packed = re.search(rb"^encoding: *(gz|bz)", text, re.M | re.I)
    else:
        text = re.split(rb"ElementDataFile *= *LOCAL", start)[0]
        other = len(text) == len(start)
        packed = re.search(rb"^CompressedData *= *True", text, re.M | re.I)
    factory = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if factory is None:
        raise ValueError("ITK knows no reader for it")
    if other:
        raise InputError(f"{path}: the voxels are in another file; save header and voxels as one file")
    factory.SetFileName(str(path))
    factory.ReadImageInformation()
    if factory.GetNumberOfComponents() != 1:
        count = factory.GetNumberOfComponents()
        raise InputError(f"{path}: {count} values per voxel (colour, complex or a time series); one is needed")
    shape = squeezed([factory.GetDimensions(i) for i in range(factory.GetNumberOfDimensions())])
    spacing = [factory.GetSpacing(i) for i in range(min(3, len(shape)))]
    if not min(spacing) > 0:
        text = " x ".join(f"{s:g}" for s in spacing)
        raise InputError(f"{path}: voxel size {text} mm; every one must be above 0; repair the header")
    if len(shape) != 3:
        check_grid(shape, np.eye(4), str(path))
    check_size(shape, factory.GetComponentSize(), path.stat().st_size, bool(packed), str(path))
