"""Where a run's result goes, and the folder beside it that keeps an interrupted run."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from whyprune.errors import InputError
from whyprune.pipeline.result import check_target
from whyprune.pipeline.stage import SEARCH, STAGE
from whyprune.pipeline.start import TRAINING
from whyprune.pipeline.steps import CHECKPOINT

SUFFIX = ".partial"


@dataclass(frozen=True)
class Destination:
    """A checked place for a result.

    Attributes:
        out: the result folder, absolute.
        workspace: where finished stages, checkpoints and measured plans go; None for a run that keeps nothing.
        overwrite: replace an existing result.
        resume: go on from what is in the workspace.
        helper: this process only helps with the recovery; another one writes the result.
    """

    out: Path
    workspace: Path | None
    overwrite: bool = False
    resume: bool = False
    helper: bool = False

    @property
    def notes(self) -> list[str]:
        """A sentence where something is to be resumed and nothing is there."""
        if not self.resume or self.helper or (self.workspace is not None and self.workspace.exists()):
            return []
        why = "a run that neither trains nor measures plans keeps nothing on the way"
        where = f"{self.workspace} is not there" if self.workspace is not None else why
        return [f"nothing to resume, so it starts from the beginning: {where}"]

    @classmethod
    def claim(
        cls,
        out: str | Path,
        *,
        training: bool = False,
        searching: bool = False,
        overwrite: bool = False,
        resume: bool = False,
    ) -> "Destination":
        """Checks, before any work, that a result can be written there; forgets an interrupted run if told to.

        Args:
            out: the result folder.
            training: the run trains, before or after pruning, and keeps what it has on the way.
            searching: the run measures plans, and keeps what it has measured.
            overwrite: replace an existing result.
            resume: go on with an interrupted run.

        Raises:
            InputError: the folder exists, cannot be made, or an interrupted run is kept beside it.
        """
        folder = Path(os.path.abspath(out))
        workspace = folder.with_name(folder.name + SUFFIX) if training or searching else None
        if _is_helper():
            if workspace is None or not (workspace / STAGE).is_file():
                raise InputError("start whyprune as one process: it starts the others by itself, see --devices")
            return cls(folder, workspace, resume=True, helper=True)
        check_target(folder, overwrite)
        if workspace is not None and workspace.exists():
            _check_workspace(workspace, overwrite, resume)
            if not resume:
                shutil.rmtree(workspace)
        return cls(folder, workspace, overwrite, resume)

    def kept(self) -> str | None:
        """What an interrupted run leaves to resume from, in one sentence; None for nothing."""
        if self.workspace is None or not _resumable(self.workspace):
            return None
        has = {name: (self.workspace / name).is_file() for name in (STAGE, CHECKPOINT, TRAINING, SEARCH)}
        if has[STAGE]:
            what = "the pruned network" + (" and the recovery's checkpoint are" if has[CHECKPOINT] else " is")
        elif has[TRAINING]:
            beside = " and the plans that were measured are" if has[SEARCH] else " is"
            what = f"the checkpoint of the training before pruning{beside}"
        else:
            what = "the plans that were measured are"
        return f"{what} kept in {self.workspace}: run the same command with --resume to go on"

    def tidy(self) -> None:
        """Removes a workspace from which nothing can be resumed."""
        if self.workspace is not None and not self.helper and self.kept() is None:
            shutil.rmtree(self.workspace, ignore_errors=True)

    def finish(self) -> None:
        """Removes the workspace: the result is written."""
        if self.workspace is not None and not self.helper:
            shutil.rmtree(self.workspace, ignore_errors=True)


def _check_workspace(workspace: Path, overwrite: bool, resume: bool) -> None:
    if not workspace.is_dir() or (any(workspace.iterdir()) and not _resumable(workspace)):
        raise InputError(f"{workspace} is in the way and is no interrupted run: move it, or name another --out")
    if not (overwrite or resume):
        raise InputError(f"{workspace} holds an interrupted run: --resume goes on with it, --overwrite starts anew")


def _resumable(workspace: Path) -> bool:
    """Whether there is something to go on from."""
    return any((workspace / name).is_file() for name in (STAGE, TRAINING, SEARCH))


def _is_helper() -> bool:
    """Lightning Fabric starts one process per further device, by the same command, and numbers them."""
    return os.environ.get("LOCAL_RANK", "0") not in ("", "0")
