"""Jobs' metrics as tables, for notebooks.

from tdmpc_lab.report import load
load().query("split == 'eval'").pivot_table("return_mean", "step", "job").plot()
"""

from tdmpc_lab.report.runs import load

__all__ = ["load"]
