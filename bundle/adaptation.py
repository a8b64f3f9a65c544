"""Do results look like sharp volumes? By spectrum and histogram, without a discriminator; and when to stop adapting."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from .cases import make_case
from .consistency import agree
from .evaluation import network_method, write_csv
from .geometry import CanonicalAxes, Grid, is_thick
from .inferer import SuperResolutionInferer
from .intensity import fit_intensity
from .io import prepare_output, read_volume, write_json
from .losses import histogram_distance
from .metrics import head_mask, psnr
from .networks.super_resolver import SuperResolver
from .spectra import radial_mean
from .unpaired import PrepareScand

SIDE, TOP = 80.0, 60.0  # mm: of the cube that is looked at, and of its middle below the top of the head
FREQUENCIES = np.linspace(0.1, 0.45, 15)  # cycles per mm
CENTRES = torch.linspace(0, 2.5, 64)  # of the histogram, over the mean
_AXES = (None, 0, 1, 2)  # of spectra: over all directions, and near each axis
MEASURES = ("spectrum", "through_plane", "histogram")
ALLOWED = 0.2  # dB of PSNR that adaptation may cost on a pair


def central_cube(volume: Tensor, spacing: Sequence[float]) -> Tensor:
    """A cube of 80 mm inside the brain, over its mean; canonical axes, normalised intensities.

    Args:
        volume: (D, H, W).
        spacing: mm.
    """
    places = head_mask(volume).nonzero()
    top = int(places[:, 2].max()) - round(TOP / spacing[2])
    near = places[(places[:, 2] - top).abs() < TOP / 2 / spacing[2]].float()
    middle = [int(near[:, 0].mean()), int(near[:, 1].mean()), top]
    half = [round(SIDE / 2 / s) for s in spacing]
    box = tuple(slice(max(0, m - h), m + h) for m, h in zip(middle, half, strict=True))
    cube = volume[box]
    return cube / cube.mean()


def spectrum(cube: Tensor, spacing: Sequence[float], axis: int | None = None) -> np.ndarray:
    """Decimal logarithm of the power density at :data:`FREQUENCIES`, averaged over directions; NaN beyond Nyquist's.

    The cube is tapered by a Hann window per axis; densities are per mm^3, so they do not depend on the sampling.

    Args:
        cube: (D, H, W), over its mean.
        spacing: mm.
        axis: only directions near this one, or None for all.
    """
    windows = [torch.hann_window(n, periodic=False) for n in cube.shape]
    taper = torch.einsum("i,j,k->ijk", *windows)
    power = torch.fft.rfftn((cube - 1) * taper).abs().square() / taper.square().sum() * math.prod(spacing)
    return np.log10(radial_mean(power, cube.shape, spacing, FREQUENCIES, axis))


class Look(NamedTuple):
    """What is compared of a volume: its spectra, over all directions (None) and near each axis, and its intensities."""

    spectra: dict[int | None, np.ndarray]
    values: Tensor

    @classmethod
    def at(cls, volume: Tensor, spacing: Sequence[float]) -> "Look":
        """Of the central cube of a volume (D, H, W), canonical axes, normalised; spacing in mm."""
        cube = central_cube(volume, spacing)
        return cls({axis: spectrum(cube, spacing, axis) for axis in _AXES}, cube.flatten()[::7])

    @classmethod
    def read(cls, path: str) -> "Look":
        """Of a file."""
        volume = read_volume(path)
        axes = CanonicalAxes.of(volume.affine.numpy())
        spacing = Grid(tuple(volume.shape[1:]), volume.affine.numpy()).spacing
        plain = fit_intensity(volume.as_tensor(), path).normalise(volume.as_tensor().float())
        return cls.at(axes.enter(plain[0]), tuple(spacing[axis] for axis in axes.order))


class SharpLooks:
    """What sharp volumes of one modality look like, and how far from that a volume is.

    Args:
        looks: of sharp volumes, by their path.
    """

    def __init__(self, looks: Mapping[str, Look]) -> None:
        self.looks, self.spectra = dict(looks), {}
        for axis in _AXES:
            found = np.ma.masked_invalid([look.spectra[axis] for look in looks.values()])
            self.spectra[axis] = found.mean(axis=0).filled(np.nan)  # of those that are fine enough for a frequency
        self.values = torch.cat([look.values for look in looks.values()])[None]

    def distance(self, look: Look, axis: int | None = None) -> dict[str, float]:
        """How far a volume is from sharp ones, by each of :data:`MEASURES`.

        ``spectrum`` is the mean absolute difference of the logarithms, ``through_plane`` the same near one axis,
        ``histogram`` the earth mover's distance of the intensities over their mean.

        Args:
            look: of the volume.
            axis: through the slices of the scan; None where all axes are alike.
        """
        spectra = [np.nanmean(np.abs(look.spectra[a] - self.spectra[a])) for a in (None, axis)]
        histogram = histogram_distance(look.values[None], self.values, CENTRES)
        return dict(zip(MEASURES, (*map(float, spectra), float(histogram)), strict=True))

    def between(self) -> dict[str, dict[str, float]]:
        """How far each of the volumes is from the others: what a distance of a result is worth. Nothing of one alone.

        ``through_plane`` is the mean over the three axes.
        """
        found = {}
        for path, look in self.looks.items() if len(self.looks) > 1 else ():
            others = SharpLooks({p: other for p, other in self.looks.items() if p != path})
            distances = [others.distance(look, axis) for axis in range(3)]
            found[path] = {measure: float(np.mean([d[measure] for d in distances])) for measure in MEASURES}
        return found


class Scan:
    """A scan whose truth nobody knows, on its target grid, and how far from sharp what networks make of it is.

    Results are projected onto the scan, as the bundle's are.

    Args:
        item: of a datalist.
        looks: of its modality.
    """

    def __init__(self, item: Mapping, looks: SharpLooks) -> None:
        ready = PrepareScand("image")(item)
        self.looks = looks
        self.image, self.low = (ready[key].float()[None] for key in ("image", "low"))
        self.condition = ready["condition"][None]
        self.spacing, factors = ready["spacing"], self.condition[0, 3:]
        self.axis = int(factors.argmax()) if is_thick((2**factors).tolist()) else None

    def distance(self, network: SuperResolver | None) -> dict[str, float]:
        """Of the network's result, or of the interpolated scan where there is none."""
        image = self.image
        if network is not None:
            device = next(network.parameters()).device
            image = SuperResolutionInferer()(image.to(device), network, self.condition.to(device))
            image = agree(image, self.low.to(device), network.width_rule)[0].cpu()
        return self.looks.distance(Look.at(image[0, 0], self.spacing), self.axis)


def looks_of(items: Sequence[Mapping]) -> dict[str, SharpLooks]:
    """Of sharp volumes, by modality."""
    kinds = dict.fromkeys(item["modality"] for item in items)
    paths = {kind: [item["image"] for item in items if item["modality"] == kind] for kind in kinds}
    return {kind: SharpLooks({path: Look.read(path) for path in own}) for kind, own in paths.items()}


class AdaptationGuard:
    """Keep the best weights of an adaptation, and end it when it stops getting better or costs too much.

    Every few epochs it looks at scans that training does not see. The score is the mean, over them and over all
    measures, of the distance from sharp volumes relative to that before adaptation (1: nothing gained). Weights that
    lose more than :data:`ALLOWED` dB on a sharp volume degraded by protocol A are not kept, whatever the score.

    Args:
        network: being adapted; ``best`` is a copy of it that holds the weights worth keeping.
        scans: items of held-out scans, with their modality.
        sharp: items whose sharp volumes are what results should look like.
        paired: items of sharp volumes, degraded and restored.
        every: epochs between looks.
        patience: looks without improvement after which training ends.
    """

    def __init__(
        self,
        network: SuperResolver,
        scans: Sequence[Mapping],
        sharp: Sequence[Mapping],
        paired: Sequence[Mapping],
        every: int = 1,
        patience: int = 4,
    ) -> None:
        self.network, self.best = network, deepcopy(network)
        self.scans, self.sharp, self.paired, self.every, self.patience = scans, sharp, paired, every, patience
        self.before: list[dict[str, float]] = []
        self.psnr_before, self.score, self.waited, self.ready = 0.0, 1.0, 0, False

    def attach(self, engine: Engine) -> None:
        """Register a look before the first epoch, and after every few."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.look)

    def start(self, engine: Engine) -> None:
        """Read the volumes and see where the adaptation begins."""
        looks = looks_of(self.sharp)
        self.scans = [Scan(item, looks[item["modality"]]) for item in self.scans]
        self.paired = [make_case(item["image"], "A", (2, 2, 2)) for item in self.paired]
        if not self.ready:
            self.before = [scan.distance(self.best.eval()) for scan in self.scans]
            self.psnr_before, self.ready = self._psnr(self.best), True

    def look(self, engine: Engine) -> None:
        """Judge the network as it is now."""
        network = self.network.eval()
        now = [scan.distance(network) for scan in self.scans]
        ratios = [a[m] / b[m] for a, b in zip(now, self.before, strict=True) for m in MEASURES]
        score, lost = float(np.mean(ratios)), self.psnr_before - self._psnr(network)
        better = score < self.score and lost <= ALLOWED
        engine.logger.info(
            f"adaptation: distance from sharp volumes {score:.3f} of before, PSNR {-lost:+.2f} dB"
            f"{', the best so far' if better else ''}; {engine.state.adaptation}"
        )
        if better:
            self.score, self.waited = score, 0
            self.best.load_state_dict(network.state_dict())
            return
        self.waited += 1
        if self.waited >= self.patience:
            engine.logger.info(f"adaptation: no better for {self.waited} looks, the end")
            engine.terminate()

    def _psnr(self, network: SuperResolver) -> float:
        restore = network_method(network, next(network.parameters()).device)
        found = [psnr(restore(case)[0, 0], case.reference, case.mask, case.span) for case in self.paired]
        return float(np.mean(found))

    def state_dict(self) -> dict:
        """Where it stands."""
        kept = {name: getattr(self, name) for name in ("before", "psnr_before", "score", "waited", "ready")}
        return {**kept, "best": self.best.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from there."""
        self.best.load_state_dict(state["best"])
        for name in ("before", "psnr_before", "score", "waited", "ready"):
            setattr(self, name, state[name])


def compare_adaptation(
    items: Sequence[Mapping], sharp: Sequence[Mapping], networks: Mapping[str, SuperResolver], folder: Path
) -> list[dict]:
    """Distances from sharp volumes of scans as interpolated and as networks restore them, and of these from each other.

    Writes ``adaptation.csv`` and ``adaptation.json``; returns the rows.
    """
    looks, rows = looks_of(sharp), []

    def add(path: str, modality: str, method: str, distance: Mapping[str, float]) -> None:
        rounded = {measure: round(value, 4) for measure, value in distance.items()}
        rows.append({"scan": Path(path).name, "modality": modality, "method": method, **rounded})

    for modality, own in looks.items():
        for path, distance in own.between().items():
            add(path, modality, "sharp, from others", distance)
    for item in items:
        scan = Scan(item, looks[item["modality"]])
        for name, network in {"cubic": None, **networks}.items():
            add(item["image"], item["modality"], name, scan.distance(network))
    folder = prepare_output(folder)
    write_csv(rows, folder / "adaptation.csv")
    write_json(folder / "adaptation.json", {"rows": rows})
    return rows
