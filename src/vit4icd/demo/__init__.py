"""The main job on packaged photographs: which of these pictures is a copy of which?"""

from vit4icd.demo.run import DemoResult, DemoRow, run_demo

__all__ = ["DemoResult", "DemoRow", "run_demo"]
