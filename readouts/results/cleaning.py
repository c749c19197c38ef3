"""What a results folder holds that no table, page or comparison reads: what `scivid clean` lists."""

from pathlib import Path

from featcache.system.files import left_over
from readouts.results.run_folder import RunFolder
from readouts.results.table import readable_results


def removable_of(results_dir: Path, *, weights: bool = False) -> dict[Path, str]:
    """Files of a results folder that can go, and why; nothing of one that is not there.

    Args:
        results_dir: that of the table.
        weights: those of runs that have ended as well: only a prediction, or the scoring of a further split,
            would read them.
    """
    ended = {RunFolder.of(results_dir, row).path for row in readable_results(results_dir)[0]}
    found = dict.fromkeys(left_over(results_dir), "left by a writer that was killed")
    for folder in results_dir.glob("*/*-????????????"):
        run = RunFolder(folder)
        if folder in ended and not run.is_held():
            # By versions that kept the best weights as well; nothing ever read them.
            found |= dict.fromkeys(folder.glob("best_*.safetensors"), "weights that nothing ever read")
            if weights and run.state.is_file():
                found[run.state] = "weights of a run that has ended"
    return dict(sorted(found.items()))
