"""A run from config to result: lock, directory, objects, preparation, loop, result.json."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from manyface.base.errors import ConfigError
from manyface.base.threads import cpu_threads
from manyface.checkpoint import bytes_to_stage, run_lock, sweep
from manyface.config import Config
from manyface.evaluate import make_embed_function
from manyface.kernels import choose
from manyface.observe import EventLog, MemoryMeter, Throughput
from manyface.observe.progress import Progress, SilentProgress, make_progress
from manyface.observe.provenance import versions
from manyface.observe.tensorboard import TensorBoardLog
from manyface.parallel import Ranks, all_or_none, joined, most_restarts, patience
from manyface.train import directory as places
from manyface.train.build import Training, build_training
from manyface.train.checks import recipe_warnings
from manyface.train.devices import choose_device, describe_device, threads_here
from manyface.train.loop import Loop
from manyface.train.prepare import prepare
from manyface.train.recording import Notices, Recorder
from manyface.train.result import make_result, render_result
from manyface.train.saving import OnSave, Saver
from manyface.train.state import Position, identities_fingerprint, resume_state, state_of
from manyface.train.stop import Interrupted, StopFlag, received_by_any
from manyface.train.validation import Validation

_SLOWEST_DISK = 20e6  # bytes a second

Resume = bool | Literal["if-there"]


class MakeProgress(Protocol):
    """Makes the display of a run."""

    def __call__(self, name: str, *, num_steps: int) -> Progress: ...


@dataclass(frozen=True)
class RunResult:
    """Where a finished run lies, and the content of its result.json."""

    directory: Path
    result: dict[str, Any]


@dataclass(frozen=True)
class _Start:
    """From where a run starts: its position, the checkpoint of it, facts about the data."""

    position: Position
    checkpoint: Path | None
    data: dict[str, int]


def train(
    config: Config,
    *,
    resume: Resume = False,
    force: bool = False,
    progress: MakeProgress = make_progress,
    stop: StopFlag | None = None,
) -> RunResult:
    """Train as `config` says, in `config.run_directory`.

    Under a launcher such as torchrun every rank calls this; rank 0 writes and shows, the others are
    silent. The result is that of rank 0 on all.

    Args:
        resume: go on from the newest good checkpoint of the run that is there; "if-there": if
            there is a run.
        force: overwrite a run that is there; not under a launcher that restarts.
        progress: makes the display; `observe.progress.SilentProgress` shows nothing.
        stop: ends the run early, after saving; by default one that signals set (stop.py).

    Raises ManyfaceError for what a user can cause or mend; `Interrupted` after a stop.
    """
    with joined(choose_device(config.run.device), seconds=config.run.timeout_seconds) as ranks:
        resume = _agreed_resume(config.run_directory, resume, force, ranks)
        config = places.with_precision(config, resume=resume)
        places.check_same_recipe(config, ranks)
        with (
            places.naming_kept(config.run_directory),
            _lock(config.run_directory, ranks),
            MemoryMeter() as meter,
            cpu_threads(config.run.threads or threads_here()),
        ):
            return _locked(
                config,
                resume=resume,
                force=force,
                progress=progress,
                stop=stop,
                meter=meter,
                ranks=ranks,
            )


def _locked(
    config: Config,
    *,
    resume: bool,
    force: bool,
    progress: MakeProgress,
    stop: StopFlag | None,
    meter: MemoryMeter,
    ranks: Ranks,
) -> RunResult:
    directory, notices = config.run_directory, Notices()
    with all_or_none(ranks, "begin"):
        places.check_start(directory, config, resume=resume, force=force)
        training = build_training(config, warn=notices)
    training.method.copies.connect()
    start = _start(config, training, resume=resume, notices=notices)
    with all_or_none(ranks, "run directory"):
        if ranks.rank == 0:
            places.begin(directory, config, resume=resume)
            sweep(directory / places.CHECKPOINTS)
    with ExitStack() as open_things:
        recorder = _open_recorder(
            config, training, start, meter=meter, progress=progress, stack=open_things
        )
        _begin(config, training, start, recorder)
        notices.connect(recorder)
        stop = open_things.enter_context(
            stop or StopFlag(notify=recorder.alert, launched=not ranks.is_alone)
        )
        if start.checkpoint is None:  # with one, of step 0 too, it is done already
            _prepare(training, recorder=recorder, stop=stop)
        return _run(config, training, start, recorder=recorder, stop=stop)


def _agreed_resume(directory: Path, resume: Resume, force: bool, ranks: Ranks) -> bool:
    """Whether to resume, the same on all ranks; before anything is written."""
    if force and most_restarts() > 0:
        raise ConfigError(
            f"--force would delete the run again at each of torchrun's {most_restarts()} restarts; "
            "delete it yourself, and use --resume-or-start"
        )
    is_there = (directory / places.CONFIG).exists()
    wants = resume is True or (resume == "if-there" and is_there)
    return bool(ranks.agree(int(wants and ranks.rank == 0), name="resume")[0])


@contextmanager
def _lock(directory: Path, ranks: Ranks) -> Iterator[None]:
    """Rank 0 holds it for all."""
    with ExitStack() as stack:
        with all_or_none(ranks, "lock"):
            if ranks.rank == 0:
                stack.enter_context(run_lock(directory))
        yield


def _start(config: Config, training: Training, *, resume: bool, notices: Notices) -> _Start:
    directory, source = config.run_directory, training.source
    data = {
        "num_images": len(source),
        "num_identities": source.num_identities,
        "fingerprint": identities_fingerprint(source),
    }
    if not resume:
        return _Start(Position(), None, data)
    position, checkpoint = resume_state(
        directory / places.CHECKPOINTS,
        training.method,
        data=data,
        warn=notices,
        ranks=training.ranks,
    )
    if checkpoint is None:
        notices("there is no checkpoint to resume from; the run begins at step 0")
    elif position.best_score is not None and places.is_judged_otherwise(directory, config):
        notices("the run is verified on other pairs from here on; the best score begins anew")
        position.best_score = None
    return _Start(position, checkpoint, data)


def _open_recorder(
    config: Config,
    training: Training,
    start: _Start,
    *,
    meter: MemoryMeter,
    progress: MakeProgress,
    stack: ExitStack,
) -> Recorder:
    """Open log and display; `stack` closes them."""
    directory, position = config.run_directory, start.position
    num_steps = training.plan.schedule.num_steps
    is_first = training.ranks.rank == 0
    events = EventLog(
        directory / places.EVENTS if is_first else None, seconds_before=position.elapsed_seconds
    )
    stack.enter_context(events)
    board = None
    if config.train.tensorboard and is_first:
        board = TensorBoardLog(directory / places.TENSORBOARD, first_step=position.step)
        stack.enter_context(closing(board))
    return Recorder(
        events,
        stack.enter_context(
            progress(config.run.name, num_steps=num_steps) if is_first else SilentProgress()
        ),
        num_steps=num_steps,
        throughput=Throughput(images=position.images, seconds=position.train_seconds),
        meter=meter,
        tensorboard=board,
    )


def _begin(config: Config, training: Training, start: _Start, recorder: Recorder) -> None:
    recorder.begin(
        start.position.step,
        name=config.run.name,
        num_steps=training.plan.schedule.num_steps,
        **start.data,
        device=describe_device(training.device),
        ranks=training.ranks.size,
        kernels=str(choose(training.device)),
        versions=versions(),
    )
    if start.checkpoint is not None:
        recorder.say(f"going on after step {start.position.step} from {start.checkpoint}")
        return
    for text in recipe_warnings(config):
        recorder.warn(text)


def _prepare(training: Training, *, recorder: Recorder, stop: StopFlag) -> None:
    if training.preparation is not None:
        prepare(
            training.method,
            training.preparation,
            seed=training.plan.seed,
            recorder=recorder,
            stop=stop,
            ranks=training.ranks,
        )


def ranks_patience(config: Config, training: Training) -> float:
    """Seconds that a rank waits for another one's rows to be written, at 20 MB a second."""
    usual = patience(training.device, config.run.timeout_seconds)
    return usual + bytes_to_stage(state_of(training.method, Position())[0]) / _SLOWEST_DISK


def staging_bytes(config: Config) -> int | None:
    """Memory for copies that are written beside training; None is as the saver chooses."""
    chosen = config.train.staging_gib
    return None if chosen is None else int(chosen * 2**30)


def _run(
    config: Config, training: Training, start: _Start, *, recorder: Recorder, stop: StopFlag
) -> RunResult:
    position = start.position
    validation = _validation(config, training, recorder=recorder, stop=stop)
    saver = _saver(config, training, start, on_save=recorder.saved)
    Loop(
        training.method,
        training.loader,
        plan=training.plan,
        position=position,
        evaluate=validation,
        saver=saver,
        recorder=recorder,
        stop=stop,
        ranks=training.ranks,
    ).run()
    if training.evaluators and not validation.results:  # a complete run was resumed
        validation(position.step)
        if received := received_by_any(stop, training.ranks):  # the scores stay as they are
            raise Interrupted(received, checkpoint=saver.last)
    recorder.measure(position)
    result = make_result(config, training, position, validation.results)
    _write_result(config.run_directory, result, training.ranks)
    recorder.write("end", step=position.step, images_per_second=result["images_per_second"])
    return RunResult(config.run_directory, result)


def _validation(
    config: Config, training: Training, *, recorder: Recorder, stop: StopFlag
) -> Validation:
    embed = make_embed_function(
        training.method.embedder,
        training.device,
        flip=config.evaluation.flip,
        autocast=training.autocast,
    )
    return Validation(
        training.evaluators,
        embed,
        num_steps=training.plan.schedule.num_steps,
        directory=config.run_directory / places.EVALUATION,
        recorder=recorder,
        stop=stop,
        ranks=training.ranks,
    )


def _saver(config: Config, training: Training, start: _Start, *, on_save: OnSave) -> Saver:
    return Saver(
        config.run_directory / places.CHECKPOINTS,
        keep=config.train.keep,
        every=config.train.checkpoint_every,
        every_seconds=60 * config.train.checkpoint_minutes,
        last=start.checkpoint,
        data=start.data,
        on_save=on_save,
        staging_bytes=staging_bytes(config),
        # One process on a CPU may never need them.
        reserves=not training.ranks.is_alone or training.device.type == "cuda",
        judged_on=places.judged_on(config),
        patience=ranks_patience(config, training),
    )


def _write_result(directory: Path, result: dict[str, Any], ranks: Ranks) -> None:
    with all_or_none(ranks, "result"):
        if ranks.rank == 0:
            places.write_text(directory / places.RESULT, render_result(result))
