"""Command line: ``python -m bundle COMMAND`` or ``spcdd COMMAND``.

Heavy imports happen inside the commands, so that help is instant.
"""

import sys
from pathlib import Path
from typing import Any

from fire.decorators import SetParseFns

from .command_line import refuse_code
from .errors import InputError

ROOT = Path(__file__).resolve().parent.parent


class Commands:
    """Super-resolution of brain MRI. Research use only, not for diagnosis."""

    @SetParseFns(path=str, output_dir=str, series=str, dataset_dir=str)  # a folder 2024_01 is not the number 202401
    def enhance(self, path: str, output_dir: str, **options: Any) -> None:
        """Sharpen a volume, or every volume of a folder; `spcdd options` lists the options.

        Args:
            path: NIfTI, NRRD or MHA file, folder of them, folder of DICOM series, BIDS root, or datalist.json.
            output_dir: folder for the results.
            options: see `spcdd options`.
        """
        from .job import enhance

        enhance(str(path), str(output_dir), **options)

    def options(self) -> None:
        """List the options of `enhance`."""
        from .options import OPTIONS

        for name, option in OPTIONS.items():
            print(f"--{name:15} {option.help} [{option.default}]")

    def demo(self, output_dir: str = "demo_output") -> None:
        """Sharpen a brain template that was degraded to 2 mm; print a table and draw a picture.

        Args:
            output_dir: folder for the volumes, the table and the picture.
        """
        from .demo import demo

        demo(Path(str(output_dir)))

    def simulate(
        self,
        source: str,
        output_dir: str,
        modality: str = "T1w",
        low_field: float = 1.5,
        high_field: float = 7.0,
        factor: list = (2, 2, 2),
        seed: int = 0,
        high_spacing: float | None = None,
        warp: bool = True,
    ) -> None:
        """Make pairs of a low-field and a high-field scan of one head, with tissue map, bias field and sidecar.

        Args:
            source: label map with FreeSurfer or SynthSeg numbers, a folder of them, or `phantom`.
            output_dir: folder for the volumes.
            modality: T1w or T2w.
            low_field: tesla, from 1.5.
            high_field: tesla, to 7.
            factor: low over high spacing per axis, such as [2,2,2] or [1,1,4].
            seed: of everything that is drawn; the same seed gives the same bytes.
            high_spacing: voxel size in mm of the high-field volume; default: that of the map.
            warp: whether every seed gets a head of its own shape.
        """
        from .simulate import simulate

        simulate(str(source), str(output_dir), modality, low_field, high_field, factor, seed, high_spacing, warp)

    def realism(self, data: str, output_dir: str, dataset_dir: str = ".", maps: int = 6) -> None:
        """Compare simulated 3 T brains with real ones: contrast of tissues, power spectrum, pictures.

        Args:
            data: datalist.json with sections `brains` (skull-stripped scans) and `training` (label maps among it).
            output_dir: folder for realism.json and realism.png.
            dataset_dir: folder that the datalist's paths are relative to.
            maps: how many label maps.
        """
        from .data import read_datalist
        from .realism import realism

        real = [item["image"] for item in read_datalist(str(data), "brains", str(dataset_dir))]
        training = read_datalist(str(data), "training", str(dataset_dir))
        labels = [item["image"] for item in training if item.get("kind") == "label_map"]
        realism(real, labels[: int(maps)], Path(str(output_dir)))

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
    ) -> None:
        """Degrade sharp volumes by a named protocol, restore them by every method, and write tables.

        Args:
            data: a volume, a folder of volumes, or a datalist.json.
            output_dir: folder for results.csv and results.json.
            section: of the datalist.
            dataset_dir: folder that the datalist's paths are relative to.
            protocols: of A (1 % noise), B (3 %), C (another point-spread function).
            factors: list of three whole numbers each.
            networks: NAME=FILE of weights, several with commas between, for rows of their own.
            model: name of another network, such as `teacher` (configs/model_teacher.json), for rows of its own.
            device: cpu or cuda.
        """
        from .job import evaluate

        names = protocols if isinstance(protocols, tuple | list) else str(protocols).split(",")
        evaluate(str(data), Path(str(output_dir)), section, str(dataset_dir), names, factors, networks, model, device)

    def guidance(
        self,
        data: str,
        output_dir: str,
        networks: str,
        section: str = "reported",
        dataset_dir: str = ".",
        protocol: str = "A",
        seed: int = 0,
    ) -> None:
        """Compare networks on scans with strong shading and distortion, as they are, corrected first, or guided.

        Args:
            data: datalist.json.
            output_dir: folder for results.csv and results.json.
            networks: NAME=FILE of weights, several with commas between.
            section: of the datalist, or several with commas between.
            dataset_dir: folder that the datalist's paths are relative to.
            protocol: A (1 % noise), B (3 %) or C.
            seed: of shading, coil and noise.
        """
        from .job import guidance

        names = ",".join(section) if isinstance(section, tuple | list) else str(section)
        files = ",".join(networks) if isinstance(networks, tuple | list) else str(networks)
        guidance(str(data), Path(str(output_dir)), files, names, str(dataset_dir), str(protocol), int(seed))

    def uncertainty(
        self,
        data: str,
        output_dir: str,
        section: str = "reported",
        dataset_dir: str = ".",
        samples: int = 1,
        model: str | None = None,
        calibrate: bool = False,
    ) -> None:
        """See whether the uncertainty map ranks and covers the errors; protocol A, factor 2.

        Args:
            data: datalist.json.
            output_dir: folder for uncertainty.json and reliability.png.
            section: of the datalist, or several with commas between.
            dataset_dir: folder that the datalist's paths are relative to.
            samples: per volume; 1: the map of `--save_uncertainty`, which the network predicts in one step.
            model: name of another network, such as `teacher`.
            calibrate: scale the map so that it covers the errors of this section, and save that with the weights.
        """
        from .job import uncertainty
        from .options import read_boolean, read_number

        names = ",".join(section) if isinstance(section, tuple | list) else str(section)
        count, scale = read_number(1, 1000, whole=True)("samples", samples), read_boolean("calibrate", calibrate)
        uncertainty(str(data), Path(str(output_dir)), names, str(dataset_dir), count, model, scale)

    def anatomy(self, data: str, output_dir: str, dataset_dir: str = ".") -> None:
        """Compare the tissue that the anatomy extractor finds with label maps, with itself, and with a template.

        Args:
            data: datalist.json with sections `reported` and `reported_simulated`.
            output_dir: folder for anatomy.json.
            dataset_dir: folder that the datalist's paths are relative to.
        """
        from .job import anatomy

        anatomy(str(data), Path(str(output_dir)), str(dataset_dir))

    def benchmark(
        self, output_dir: str = "benchmark_output", sizes: str | None = None, model: str | None = None
    ) -> None:
        """Measure seconds and memory on this machine.

        Args:
            output_dir: folder for benchmark.json.
            sizes: list of output shapes; default [[192,224,192],[256,320,256]].
            model: name of another network, such as `teacher`.
        """
        from .benchmark import benchmark

        benchmark(Path(str(output_dir)), sizes, model)


def main() -> None:
    """Entry point; a refused input is one line on standard error and exit status 1."""
    import fire

    try:
        for word in sys.argv[1:]:
            refuse_code(fire.parser.DefaultParseValue(word.partition("=")[2] if word.startswith("--") else word))
        fire.Fire(Commands(), name="spcdd")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
