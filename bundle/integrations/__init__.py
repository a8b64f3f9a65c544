"""The bundle inside other programs: a MONAI Label app and a command-line module of 3D Slicer."""
