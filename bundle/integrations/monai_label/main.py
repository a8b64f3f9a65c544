"""The app that ``monailabel start_server --app`` loads; a copy elsewhere finds the bundle too, by its import."""

from pathlib import Path

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import strtobool

import bundle
from bundle.integrations.monai_label.infer import SuperResolutionTask, TissueTask
from bundle.integrations.monai_label.train import SuperResolutionTrainTask


class SuperResolutionApp(MONAILabelApp):
    """Serves ``superres`` (a sharper image), ``tissue`` (labels on the grid of the input) and training of ``superres``.

    Args:
        app_dir: folder of the app; weights that are trained here go to ``model`` in it.
        studies: folder, or address of a DICOM web server, with the images.
        conf: of ``--conf``; ``skip_trainers true`` leaves training out.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.trained = Path(app_dir) / "model"
        super().__init__(
            app_dir,
            studies,
            conf,
            name="Brain MRI super-resolution",
            description="Sharper, 7 T-like brain MRI from ordinary scans; research use only, not for diagnosis",
            version=bundle.__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The two tasks that answer with a volume."""
        return {"superres": SuperResolutionTask(self.conf, self.trained), "tissue": TissueTask(self.conf)}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Training of ``superres``, where it is wanted."""
        if strtobool(self.conf.get("skip_trainers", "false")):
            return {}
        return {"superres": SuperResolutionTrainTask(self.conf, self.trained)}
