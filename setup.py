"""Install pano4d: the repository root is the package, so that folder names and import names agree."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(encoding="utf-8"), re.M).group(1)

# Written out, since tests, examples and benchmarks lie in the same root and must stay out of the wheel.
PACKAGES = [
    "pano4d",
    "pano4d.build_engines",
    "pano4d.lifting",
    "pano4d.lifting.formats",
    "pano4d.lifting.optimize",
    "pano4d.lifting.viewer",
    "pano4d.runtime",
    "pano4d.runtime.backends",
    "pano4d.runtime.kernels",
]

TORCH = "torch>=2.9,<3"
CUDA = ["cuda-python>=13,<14", "nvidia-cuda-nvrtc>=13,<14"]

EXTRAS = {
    "build": [TORCH, "diffusers>=0.35,<1", "transformers>=4.56,<6", "onnx>=1.18,<2", "onnxscript>=0.5,<1"],
    "hub": ["huggingface-hub>=0.34,<3"],
    "gpu": CUDA,
    "tensorrt": [*CUDA, "tensorrt-cu13>=10.16,<12"],
    "lift": [TORCH, "gsplat>=1.5,<2", "transformers>=4.56,<6"],
    "dev": ["pytest>=8.3,<10", "pytest-xdist>=3.6,<4", "hypothesis>=6.100,<7", "scipy>=1.13,<2", "playwright>=1.50,<2",
            "gaussforge>=0.6,<1", *CUDA],
}


class PackageModules(build_py):
    """Leave this file out of the wheel: setuptools takes every module of the root for the package's."""

    def find_package_modules(self, package, package_dir):
        """List (package, module, file) as setuptools does, without ``setup``."""
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "setup"]


setup(
    name="pano4d",
    version=VERSION,
    description="One panorama in, a moving 4D scene out: seamless panoramic video and 3D Gaussians per frame",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    package_dir={"pano4d": "."},
    packages=PACKAGES,
    package_data={
        "pano4d.runtime": ["demo/*", "demo/*/*"],
        "pano4d.runtime.kernels": ["*.cu", "*.cuh"],
        "pano4d.lifting.viewer": ["web/index.html", "web/style.css", "web/start.js", "web/viewer.js", "web/LICENSES.txt"],
    },
    include_package_data=False,
    install_requires=[
        "numpy>=1.26,<3",
        "onnxruntime>=1.20,<2",
        "imageio[ffmpeg]>=2.34,<3",
        "pillow>=10.1,<14",
        "click>=8.1,<9",
        "rich>=13.7,<16",
        "safetensors>=0.4.3,<1",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["pano4d = pano4d.cli:main"]},
    cmdclass={"build_py": PackageModules},
)
