"""Command line: ``python -m bundle COMMAND`` or ``spcdd COMMAND``.

Heavy imports happen inside the commands, so that help is instant.
"""

import sys
from pathlib import Path
from typing import Any

from fire.decorators import SetParseFns

from .command_line import refuse_code
from .errors import InputError
from .studies.commands import StudyCommands, words

ROOT = Path(__file__).resolve().parent.parent


class Commands(StudyCommands):
    """Super-resolution of brain MRI. Research use only, not for diagnosis."""

    @SetParseFns(path=str, output_dir=str, series=str, dataset_dir=str)  # a folder 2024_01 is not the number 202401
    def enhance(self, path: str, output_dir: str, **options: Any) -> None:
        """Sharpen a volume, or every volume of a folder; `spcdd options` lists the options.

        Args:
            path: NIfTI, NRRD or MHA file, folder of them, folder of DICOM series, BIDS root, or datalist.json.
            output_dir: folder for the results.
            options: see `spcdd options`.
        """
        from .lean import import_monai

        import_monai()
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

        files, sections = (",".join(words(value)) for value in (networks, section))
        guidance(str(data), Path(str(output_dir)), files, sections, str(dataset_dir), str(protocol), int(seed))

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

    def explain(
        self,
        volume: str,
        output_dir: str,
        model: str = "moe",
        target_spacing: list | None = None,
        contrast: str = "7T",
        modality: str = "auto",
    ) -> None:
        """Show what each expert of a mixture does to a volume: gate maps, difference maps, a picture.

        Args:
            volume: NIfTI, NRRD or MHA file.
            output_dir: folder for the maps (NIfTI), `*_desc-experts.png` and `*_desc-experts.json`.
            model: name of a network with experts (configs/model_NAME.json).
            target_spacing: as of `enhance`.
            contrast: as of `enhance`.
            modality: as of `enhance`.
        """
        from .job import explain

        options = {"target_spacing": target_spacing, "contrast": contrast, "modality": modality}
        explain(str(volume), Path(str(output_dir)), str(model), **options)

    def regions(
        self,
        data: str,
        output_dir: str,
        networks: str,
        section: str = "reported_simulated",
        dataset_dir: str = ".",
        modalities: str = "T1w,T2w",
        routing: float = 0.4,
    ) -> None:
        """Compare networks by region (centrum semiovale, cortex, junction), and see what the experts of a mixture do.

        Args:
            data: datalist.json.
            output_dir: folder for regions.json.
            networks: NAME=FILE of weights, several with commas between.
            section: of the datalist, several with commas between.
            dataset_dir: folder that the datalist's paths are relative to.
            modalities: of label maps.
            routing: threshold of sparse routing, for a row of its own.
        """
        from .job import regions

        files, sections = (",".join(words(value)) for value in (networks, section))
        regions(str(data), Path(str(output_dir)), files, sections, str(dataset_dir), words(modalities), routing)

    def export(self, output_dir: str = str(ROOT / "models"), model: str | None = None) -> None:
        """Write the network as TorchScript (model.ts) and ONNX (model.onnx), for configs/inference_cuda.json and _onnx.

        Args:
            output_dir: folder for the two files.
            model: name of another network, such as `teacher`.
        """
        from .export import export
        from .io import prepare_output

        for path in export(prepare_output(str(output_dir)), model):
            print(path)

    def benchmark(
        self,
        output_dir: str = "benchmark_output",
        sizes: list | None = None,
        model: str | None = None,
        parts: str = "network,layers,reference,command,seams,simulation,training",
        repeats: int = 3,
        full: bool = False,
    ) -> None:
        """Measure seconds, memory and arithmetic on this machine: JSON, tables and a picture.

        Args:
            output_dir: folder for benchmark.json, benchmark.md and benchmark.png.
            sizes: list of output shapes; default [[192,224,192],[256,320,256],[512,512,320]].
            model: name of another network, such as `teacher`.
            parts: what to measure.
            repeats: calls, of which the fastest counts.
            full: every combination of network, steps and tiles at every size, which takes long.
        """
        from .benchmark.run import benchmark
        from .options import read_boolean, read_number

        names = parts if isinstance(parts, tuple | list) else str(parts).split(",")
        count = read_number(1, 100, whole=True)("repeats", repeats)
        benchmark(Path(str(output_dir)), sizes, model, names, count, read_boolean("full", full))


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
