"""Commands that measure: ``python -m bundle evaluate | ablate | morphometry | hallucination | reproduce``.

Heavy imports happen inside, as in :mod:`bundle.__main__`.
"""

from pathlib import Path
from typing import Any

from ..errors import InputError


def words(value: Any) -> list[str]:
    """``a,b`` or ``(a, b)``, as the command line hands it over, as a list."""
    return [str(v) for v in value] if isinstance(value, tuple | list) else str(value).split(",")


def read_seeds(value: Any) -> list[int] | None:
    """``0,1,2``, or one number.

    Raises:
        InputError: not whole numbers from 0.
    """
    from ..options import read_number

    if value is None:
        return None
    return [read_number(0, 2**31, whole=True)("seeds", seed) for seed in words(value)]


def need_drawing() -> None:
    """See that plots can be drawn before the work begins.

    Raises:
        InputError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InputError("this command draws with the package matplotlib; run: pip install matplotlib")


class StudyCommands:
    """Commands that take the results apart."""

    def evaluate(
        self,
        data: str,
        output_dir: str,
        section: str = "reported",
        dataset_dir: str = ".",
        protocols: str = "A,B",
        factors: list = ((2, 2, 2), (1, 1, 3)),
        networks: str | None = None,
        model: str | None = None,
        device: str | None = None,
        tissue: bool = True,
        plots: bool = True,
    ) -> None:
        """Degrade sharp volumes by a named protocol, or take pairs; restore by every method; write tables and plots.

        Args:
            data: a volume, a folder of volumes, or a datalist.json (of volumes, label maps, or pairs low and high).
            output_dir: folder for results.csv, results.json and the plots.
            section: of the datalist, several with commas between.
            dataset_dir: folder that the datalist's paths are relative to.
            protocols: of A (1 % noise), B (3 %), C (another point-spread function).
            factors: list of three whole numbers or halves each.
            networks: NAME=FILE of weights, several with commas between, for rows of their own.
            model: name of another network, such as `teacher` (configs/model_teacher.json), for rows of its own.
            device: cpu or cuda.
            tissue: whether the anatomy extractor's Dice is in the table; it takes most of the time.
            plots: whether to draw.
        """
        from ..job import evaluate
        from ..options import read_boolean

        flags = {name: read_boolean(name, value) for name, value in (("tissue", tissue), ("plots", plots))}
        where, names = (",".join(words(section)), str(dataset_dir)), words(protocols)
        evaluate(str(data), Path(str(output_dir)), *where, names, factors, networks, model, device, **flags)

    def ablate(
        self,
        output_dir: str = "runs/ablation",
        studies: str = "prior,modulation,distillation,regression,experts",
        scale: str = "volume",
        dataset_dir: str = "data",
        datalist: str | None = None,
        cpu_minutes: float | None = None,
        seeds: str | None = None,
    ) -> None:
        """Train with and without a part for equal processor time, and write what that changes.

        Args:
            output_dir: folder for runs, tables and figures; the same command goes on where it was stopped.
            studies: of prior, modulation, distillation, regression, experts, guidance, latent, voxels; commas between.
            scale: `volume` (3D, on the data; configs/ablation.json) or `seed` (64 x 64, as in the paper; without data).
            dataset_dir: folder that the datalist's paths are relative to.
            datalist: default configs/datalist.json.
            cpu_minutes: processor time of a run at scale `volume`; default that of the config.
            seeds: of the runs at scale `volume`, with commas between; default those of the config.
        """
        need_drawing()
        from .report import ablate

        given = {"cpu_minutes": cpu_minutes, "seeds": read_seeds(seeds)}
        ablate(Path(str(output_dir)), words(studies), str(scale), str(dataset_dir), datalist, **given)

    def adaptation(
        self,
        data: str,
        output_dir: str,
        networks: str,
        section: str = "adaptation_reported",
        sharp: str = "training",
        dataset_dir: str = ".",
    ) -> None:
        """Tell how far from sharp volumes scans are, as interpolated and as networks restore them.

        Args:
            data: datalist.json; its scans have a `modality`.
            output_dir: folder for adaptation.csv and adaptation.json.
            networks: NAME=FILE of weights, several with commas between.
            section: of the scans, several with commas between.
            sharp: sections with the sharp volumes that results should look like; thick slices among them don't count.
            dataset_dir: folder that the datalist's paths are relative to.
        """
        from ..adaptation import compare_adaptation
        from ..data import check_files, read_datalist
        from ..job import parse_networks
        from ..networks.weights import load_super_resolver
        from ..unpaired import sharp_volumes

        found = {name: load_super_resolver(file) for name, file in parse_networks(",".join(words(networks)))}
        sections = (",".join(words(value)) for value in (section, sharp))
        scans, volumes = (read_datalist(str(data), names, str(dataset_dir)) for names in sections)
        check_files([*scans, *volumes])
        for row in compare_adaptation(scans, sharp_volumes(volumes), found, Path(str(output_dir))):
            print(" ".join(f"{k} {v}" for k, v in row.items()))

    def morphometry(
        self,
        data: str,
        output_dir: str,
        section: str = "reported",
        dataset_dir: str = ".",
        factors: list = ((2, 2, 2),),
        protocol: str = "A",
    ) -> None:
        """Compare the volumes of ventricles, grey and white matter in results, in the reference and after cubic.

        Args:
            data: a volume, a folder of volumes, or a datalist.json.
            output_dir: folder for morphometry.csv and morphometry.png.
            section: of the datalist, several with commas between.
            dataset_dir: folder that the datalist's paths are relative to.
            factors: list of three whole numbers or halves each.
            protocol: A, B or C.
        """
        need_drawing()
        from ..job import parse_factors, read_items
        from .morphometry import morphometry

        items = read_items(str(data), ",".join(words(section)), str(dataset_dir))
        morphometry(items, Path(str(output_dir)), parse_factors(factors), str(protocol))

    def hallucination(
        self,
        data: str,
        output_dir: str,
        section: str = "reported",
        dataset_dir: str = ".",
        factors: list = ((2, 2, 2),),
        protocol: str = "A",
        seed: int = 0,
    ) -> None:
        """Put spheres of known size and contrast into sharp volumes; see what of them comes back, and what else does.

        Args:
            data: a volume, a folder of volumes, or a datalist.json.
            output_dir: folder for hallucination.csv and hallucination.png.
            section: of the datalist, several with commas between.
            dataset_dir: folder that the datalist's paths are relative to.
            factors: list of three whole numbers or halves each.
            protocol: A, B or C.
            seed: of the places.
        """
        need_drawing()
        from ..job import parse_factors, read_items
        from ..options import read_number
        from .hallucination import hallucination

        items = read_items(str(data), ",".join(words(section)), str(dataset_dir))
        number = read_number(0, 2**31, whole=True)("seed", seed)
        hallucination(items, Path(str(output_dir)), parse_factors(factors), str(protocol), number)

    def reproduce(self, output_dir: str = "reproduced", dataset_dir: str = "data", only: str | None = None) -> None:
        """Make the main tables of docs/results.md again from the weights in models/.

        Args:
            output_dir: folder, one subfolder per table; what is done is not done again.
            dataset_dir: folder of the data that configs/datalist.json names.
            only: names of tables, with commas between; default all.
        """
        need_drawing()
        from .reproduce import reproduce

        reproduce(Path(str(output_dir)), str(dataset_dir), words(only) if only is not None else None)
