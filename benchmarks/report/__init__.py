"""The experiments of a reproduction report on small images, as its own code has them.

The report is that of Zang, Cao and Shang, written in Keras. The networks and the recipe here are
facts from its public code; `configs/small` has what we would recommend instead. Importing this
package registers what the configs beside it name.
"""

from benchmarks.report.networks import ReportBaseline, ReportFishNet, ReportHead
from benchmarks.report.preprocessing import ReportPreprocessor
from benchmarks.report.timing import CPUTimeHook

__all__ = ['CPUTimeHook', 'ReportBaseline', 'ReportFishNet', 'ReportHead', 'ReportPreprocessor']
