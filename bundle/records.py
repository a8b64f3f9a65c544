"""What there is to do: one record per volume, whatever the source is."""

import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .data import normal, path_inside, read_images
from .errors import InputError
from .io import RESULT, find_volumes, is_result, join_name, name_parts, split_name

DATALIST = ".json"


class Record(NamedTuple):
    """A volume to do.

    ``files``: its file, or those of its DICOM series. ``label``: what messages and the sidecar call it. ``stem`` and
    ``suffix``: of the names of its results, a path below the output folder, with the part's name between them.
    """

    files: tuple[str, ...]
    label: str
    stem: str
    suffix: str = ""
    dicom: bool = False
    acquisition: Mapping[str, Any] = {}
    bids_root: str = ""

    @classmethod
    def of_file(cls, path: Path, folder: str = "", **more: Any) -> "Record":
        """That of a volume in one file; ``folder`` of its results below the output folder."""
        stem, suffix = name_parts(path)
        return cls((str(path),), str(path), str(Path(folder) / stem), suffix, **more)

    def result(self, part: str = RESULT) -> str:
        """Path of a result below the output folder."""
        return join_name(self.stem, self.suffix, part)

    def item(self) -> dict[str, Any]:
        """Item of a MONAI dataset: plain text and lists, which any loader can collate and any process can be sent."""
        item = {"image": self.files[0], "path": self.label, "stem": self.stem, "suffix": self.suffix}
        if self.dicom:
            item |= {"image": list(self.files), "dicom": json.dumps(self.files)}
        if self.bids_root:
            item["bids_root"] = self.bids_root
        return item | ({"acquisition": dict(self.acquisition)} if self.acquisition else {})


def find_records(source: str, series: str = "all", dataset_dir: str | None = None) -> list[Record]:
    """Volumes of a file, a folder, DICOM series, a BIDS root or a datalist, in a fixed order.

    Args:
        source: path.
        series: ``all``, or which ones: of DICOM a UID, number or description, of BIDS entities such as
            ``sub-01_ses-2_T1w``, of a datalist its section.
        dataset_dir: folder that the paths of a datalist are relative to and may not leave; default: the list's own.

    Raises:
        InputError: nothing there, or nothing chosen.
    """
    try:
        return _find(Path(source), source, series, dataset_dir)
    except OSError as error:
        raise InputError(f"{str(source)[:200]}: cannot be looked at ({error.strerror})") from error


def _find(path: Path, source: str, series: str, dataset_dir: str | None) -> list[Record]:
    if path.is_file() and path.suffix.lower() == DATALIST:
        return _of_datalist(path, series, dataset_dir)
    if (path / "dataset_description.json").is_file():
        from .bids import find_scans  # pybids is loaded where there is BIDS only

        return [Record.of_file(p, folder, acquisition=a, bids_root=source) for p, folder, a in find_scans(path, series)]
    dicom = _of_dicom(path, series)
    if dicom:
        volumes = sorted(p for p in path.iterdir() if _is_volume(p)) if path.is_dir() and series == "all" else []
        return [Record.of_file(p) for p in volumes] + dicom
    if series != "all":
        raise InputError(f"{path}: --series {series} is for DICOM, BIDS and datalists, and this is none of them")
    return [Record.of_file(p) for p in find_volumes(path)]


def _is_volume(path: Path) -> bool:
    return path.is_file() and bool(split_name(path)[1]) and not is_result(path) and not path.name.startswith(".")


def _of_datalist(path: Path, series: str, dataset_dir: str | None) -> list[Record]:
    """Images of one section (``testing`` where there is one) or of all; results go to folders like theirs."""
    root = Path(dataset_dir) if dataset_dir else path.parent
    found: dict[Path, Record] = {}
    for image in read_images(str(path), series):
        file = path_inside(root, image, str(path))
        found.setdefault(file, Record.of_file(file, str(file.relative_to(normal(root)).parent)))
    if not found:
        raise InputError(f"{path}: no images in it")
    return list(found.values())


def _of_dicom(path: Path, series: str) -> list[Record]:
    """Series of a folder, or the one multi-frame file; below a folder with subfolders, results lie as the files do."""
    from .dicom import choose_series, find_series, is_dicom  # pydicom is loaded where it may be needed only

    if path.is_file():
        if split_name(path)[1] or not is_dicom(path):
            return []
        found = [s for s in find_series(path.parent, deep=False) if str(path) in s.files]
        if found and found[0].images > 1 and len(found[0].files) > 1:
            raise InputError(f"{path}: one image of a series of {found[0].images}; name its folder")
        if not found:
            raise InputError(f"{path}: cannot be read as a DICOM image")
    elif path.is_dir():
        alone = not any(_is_volume(p) for p in path.iterdir())
        found = find_series(path, deep=alone)
    else:
        return []
    chosen = choose_series(found, series, path) if found else []
    return [_of_series(s, path if path.is_dir() else path.parent) for s in chosen]


def _of_series(series: Any, top: Path) -> Record:
    folder = Path(series.files[0]).parent
    name = f"{folder.resolve().name}_series-{series.number}"
    label = str(folder / f"series-{series.number}")
    return Record(series.files, label, str(folder.relative_to(top) / name), dicom=True)


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without what says where on a disk, or which DICOM object, the input is."""
    shown = {name: value for name, value in options.items() if name != "dataset_dir"}
    return shown | ({"series": "by UID"} if re.fullmatch(r"[0-9.]{12,64}", str(options.get("series"))) else {})


def source_uri(item: Mapping[Hashable, Any]) -> dict[str, list[str]]:
    """BIDS URI of a scan from a BIDS data set, for its sidecar; nothing for others."""
    if not item.get("bids_root"):
        return {}
    path = Path(item["path"]).relative_to(item["bids_root"]).as_posix()
    return {"Sources": [f"bids:raw:{path}"]}
