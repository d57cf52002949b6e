"""The tool's part of a note, in the style of a hand-written job log. Pure functions: text in, text out.

Also here: the tool's part of the note of a whole job array: what the sweep is, and one line for each of its tasks.

Also here: what to do about the way a job ended, where that is known: the item `fix` of its note. Pure functions.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tdmpc_lab.jobs.metrics import as_int, without_superseded
from tdmpc_lab.jobs.record import NO_SNAPSHOT, JobRecord
from tdmpc_lab.jobs.state import JobStatus, State, Why
from tdmpc_lab.jobs.variants import overrides_text, place_text, point_of, point_text
from tdmpc_lab.notes.curve import curves_of, spark_line
from tdmpc_lab.notes.note import END
from tdmpc_lab.notes.results import later_line, latest_of_each, score, table
from tdmpc_lab.text import count, duration, heading_time, number, one_line, shorten

_FILES = 6  # of code that differs; the job's record has more
_DIFFERENCES = 8  # shown in the note; `compare` lists them all
_VIDEOS = 3  # the last ones
_WARNINGS = 5  # the last ones; the job's events have all
_TRACEBACK_LINES = 30
_TRACEBACK_WIDTH = 400
_TEXT_WIDTH = 500
_TOOLS_COMMENT, _BEGIN = "<!-- tdmpc-lab:", "<!-- tdmpc-lab:begin"
_DESCRIPTION_LENGTH = 5000  # what every MLflow version takes as a tag's value

EvalRow = dict[str, Any]


@dataclass(frozen=True)
class NotePlaces:
    """Where what a job made is found."""

    checkpoint: str | None = None
    """File name of the newest checkpoint."""
    plot: str | None = None
    """The picture of its curve, as a link from the note."""
    run: str | None = None
    """Address of its page in MLflow."""
    gpu: str | None = None
    """The device it trains on, in words."""


def render_note(
    record: JobRecord,
    status: JobStatus,
    evals: Sequence[EvalRow],
    traceback: str | None = None,
    places: NotePlaces = NotePlaces(),
    *,
    error: str = "",
    warnings: Sequence[str] = (),
    happened: Sequence[Mapping[str, Any]] = (),
    later: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The tool's part of a job's note as Markdown, without the markers, ending in a newline.

    `evals` are all evaluation rows; `traceback` is shown (its last lines) when the job failed;
    `error` is the name of the Python error then; `warnings` are what the job complained of; `happened` are its events
    about phases and videos; `later` are the rows of evaluations after the training.
    """
    rows = without_superseded(evals)
    curves = [curve for curve in curves_of(rows) if len(curve.values) > 1]
    fix = remedy(record, status, error, saved=places.checkpoint is not None, again=code_span(_again(record)))
    lines = [
        f"##### {record.id} - {heading_time(record.submitted)}",
        f"- {markdown_line(record.about or record.experiment)}",
        *([f"- sweep: {markdown_line(place_text(record))}"] if record.sweep else []),
        *overrides_line(record),
        *([f"- why: {markdown_line(record.why)}"] if record.why else []),
        *([f"- {markdown_line(_difference(record))}"] if record.compare_to else []),
        *([f"- {markdown_line(_code_difference(record))}"] if record.code_against else []),
        f"- {markdown_line(what_line(record))}",
        *([f"- starts from {markdown_line(record.starts_from)}"] if record.starts_from else []),
        f"- {markdown_line(outcome_line(status, rows, places.gpu))}",
        *([f"- fix: {markdown_line(fix)}"] if fix else []),
        *(f"- curve of the {markdown_line(curve.name)}: {spark_line(curve)}" for curve in curves),
        f"- {_where(record, status, places)}",
    ]
    videos = [event for event in happened if event.get("event") == "video"]
    phases = [event for event in happened if event.get("event") == "phase"]
    lines += [f"- {markdown_line(_happened(event, record))}" for event in (*phases, *videos[-_VIDEOS:])]
    lines += [f"- {markdown_line(later_line(row))}" for row in latest_of_each(later)]
    told = (*record.warned, *warnings[-_WARNINGS:])
    lines += [f"- warning: {markdown_line(text)}" for text in dict.fromkeys(told)]
    if rows:
        lines += ["", *table(rows, f"`jobs/{record.id}/metrics.jsonl`")]
    if places.plot is not None:
        lines += ["", f"![{' and '.join(curve.name for curve in curves) or 'evaluations'}]({_address(places.plot)})"]
    if traceback and traceback.strip() and status.state is State.FAILED:
        lines += ["", *_fenced(traceback)]
    return "\n".join(lines) + "\n"


def outcome_line(status: JobStatus, evals: Sequence[EvalRow] = (), gpu: str | None = None) -> str:
    """State in words on one line, as plain text: `COMPLETED in 3:12 on node7 (A4000), step 5,000, return …`."""
    cause = status.cause or ""
    place = f" on {status.node}{f' ({gpu})' if gpu else ''}" if status.node else ""
    time = "" if status.elapsed_s is None else duration(status.elapsed_s)
    tries = f", attempt {status.attempt}" if status.attempt > 1 else ""
    step = "" if status.step is None else f", step {number(status.step)}"
    if status.state is State.PENDING:
        text = cause if cause.startswith("waiting") else f"waiting: {cause}" if cause else "waiting"
    elif status.state is State.RUNNING:
        since = f" since {status.started_at:%Y-%m-%d %H:%M:%S}" if status.started_at else ""
        of = f"{step}/{number(status.steps)}" if step else ""
        speed = f", {number(status.steps_per_s)} steps/s" if status.steps_per_s is not None else ""
        left = f", {duration(status.eta_s)} left" if status.eta_s is not None else ""
        text = f"RUNNING{place}{since}{of}{speed}{left}{tries}{f'; {cause}' if cause else ''}"
    elif status.state is State.UNKNOWN:
        seen = f" (last sign{f' after {time}' if time else ''}{step})" if time or step else ""
        text = f"UNKNOWN{tries}: {cause or 'nothing is known of it'}{seen}"
    else:
        after = f" {'in' if status.state is State.COMPLETED else 'after'} {time}" if time else ""
        score = f", {score}" if (score := _score(status, evals)) and status.state is State.COMPLETED else ""
        text = f"{status.state}{after}{place}{step}{tries}{score}{f': {cause}' if cause else ''}"
    return one_line(text)


_WAY_TO_RUN = re.compile(r" · MLflow run (?:`[0-9a-f]+`|\[`[0-9a-f]+`\]\(\S*\))$")


def describe_for_mlflow(record: JobRecord, status: JobStatus, note_text: str) -> str:
    """Description of the MLflow run: the outcome as plain text on the first line, then the note.

    What people made of the job, the verdict and the words outside of the tool's block, comes before the block,
    which may be long: all is cut to what a tag may hold. Lines that are HTML comments of the tool are left out, and so
    is the way to the run itself, which the job does not know before it has described it.
    """
    block, words = _block_and_words(note_text.splitlines())
    block = [_WAY_TO_RUN.sub("", line) for line in block]
    first = shorten(f"{record.id}: {outcome_line(status)}", _DESCRIPTION_LENGTH // 2)
    return _cut("\n".join([first, "", *words, *block]).rstrip() + "\n", _DESCRIPTION_LENGTH)


def _block_and_words(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of a note that are the tool's, and those that are not: a verdict, then an empty line after them."""
    block: list[str] = []
    words: list[str] = []
    inside = END not in lines  # the tool's part alone
    for line in lines:
        if line.startswith(_TOOLS_COMMENT):
            inside = not line.startswith(END) and (inside or line.startswith(_BEGIN))
        else:
            (block if inside else words).append(line)
    verdict = [block.pop()] if block and block[-1].startswith("-->") else []
    said = [*verdict, *"\n".join(words).strip("\n").splitlines()]
    return block, [*said, ""] if said else []


def markdown_line(text: str, width: int = _TEXT_WIDTH) -> str:
    """Words from outside, fit for one item of a list: one line, nothing at its start that Markdown takes
    for a heading, quote, list, table, fence or link definition, and no HTML."""
    line = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", shorten(text, width))
    line = re.sub(r"^([0-9]+)([.)])", r"\1\\\2", line)
    return re.sub(r"^(?=[-#>+*=|~`_[])", r"\\", line)


def overrides_line(record: JobRecord) -> list[str]:
    """The item on what the command line changed; none where it changed nothing."""
    text = overrides_text(record)
    return [f"- overrides: {markdown_line(text)}"] if text else []


def _difference(record: JobRecord) -> str:
    shown = list(record.diff[:_DIFFERENCES])
    if len(record.diff) > _DIFFERENCES:
        shown.append(f"and {len(record.diff) - _DIFFERENCES} more")
    return f"vs {record.compare_to}: {', '.join(shown) or 'no difference'}"


def _code_difference(record: JobRecord) -> str:
    """`code vs 1971498: 2 files: M src/train.py, A src/shaping.py`."""
    changed = record.code_changes
    if not changed:
        return f"code vs {record.code_against}: the same"
    shown = [*changed[:_FILES], *([f"and {len(changed) - _FILES} more"] if len(changed) > _FILES else [])]
    more = "more than " * changed[-1].startswith("and ")  # the record names the first ones
    count = len(changed) - bool(more)
    return f"code vs {record.code_against}: {more}{count} file{'' if count == 1 else 's'}: {', '.join(shown)}"


def what_line(record: JobRecord, *, seed: bool = True, links: bool = True) -> str:
    """Experiment, seed, environment, steps, resources and code on one line; in a note with a link to the parent's."""
    parent = f"[{record.parent}]({record.parent}.md)" if links else record.parent
    asked = ", ".join(f"{key} {value}" for key, value in record.resources.items() if value not in (None, "", [], {}))
    parts = [
        record.experiment,
        f"seed {record.seed}" if seed else "",
        record.env_id,
        count(record.steps_total, "step"),
        f"{record.cluster} ({asked})" if asked else record.cluster,
        f"code {record.code}" if record.code else "",
        f"continues from {parent}" if record.parent else "",
        f"rerun of {record.rerun_of}" if record.rerun_of else "",
    ]
    return " · ".join(part for part in parts if part)


def _where(record: JobRecord, status: JobStatus, places: NotePlaces) -> str:
    parts = [f"again: {code_span(_again(record))}", f"folder {code_span(f'jobs/{record.id}')}"]
    if places.checkpoint:
        parts.append(f"checkpoint {code_span(f'jobs/{record.id}/checkpoints/{places.checkpoint}')}")
    if status.run_id:
        run = code_span(status.run_id)
        parts.append(f"MLflow run [{run}]({_address(places.run)})" if places.run else f"MLflow run {run}")
    return " · ".join(parts)


def _again(record: JobRecord) -> str:
    return shlex.join(["tdmpc-lab", *_command_again(record)])


def _command_again(record: JobRecord) -> list[str]:
    """The words that make the same job again."""
    cluster = [] if record.cluster == "slurm" else ["--cluster", "local"]
    if record.rerun_of is not None:
        return ["rerun", record.rerun_of, *record.overrides, *cluster]
    code = ["--no-snapshot"] if record.live_code == NO_SNAPSHOT else []
    if record.parent is not None:
        return ["resume", record.parent, *record.overrides, *cluster, *code]
    return ["submit", record.spec_file, *record.overrides, *cluster, *code, "--again"]


def _score(status: JobStatus, evals: Sequence[EvalRow]) -> str:
    """The result of the last evaluation, or nothing."""
    row = evals[-1] if evals else status.latest_eval
    return "" if row is None else score(row)


def _happened(event: Mapping[str, Any], record: JobRecord) -> str:
    """A phase that began or a video that was made, in words."""
    if event.get("event") == "video":
        path = f"jobs/{record.id}/videos/{event.get('file')}"
        return f"video at step {number(as_int(event.get('step')))}: `{path}` ({event.get('of')})"
    changes = event.get("changes")
    listed = ", ".join(str(change) for change in changes) if isinstance(changes, list) else ""
    text = f"phase {event.get('phase')} from step {number(as_int(event.get('step')))}"
    return f"{text}: {listed}" if listed else text


def _fenced(traceback: str) -> list[str]:
    """The last lines of a traceback, without those that only underline, in a fence longer than any inside it."""
    told = [line for line in traceback.rstrip().splitlines() if line.strip(" ~^") or not line.strip()]
    lines = [_printable(line) for line in told[-_TRACEBACK_LINES:]]
    fence = "`" * max(3, 1 + _longest_backticks("\n".join(lines)))
    return [f"{fence}text", *lines, fence]


def _printable(line: str) -> str:
    """A line of a log: indentation kept, terminal codes gone, not endless."""
    line = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", line).expandtabs(4)
    line = "".join(char for char in line if char.isprintable())
    return line if len(line) <= _TRACEBACK_WIDTH else line[: _TRACEBACK_WIDTH - 1] + "…"


def code_span(text: str) -> str:
    """The text as Markdown code on one line."""
    line = one_line(text)
    ticks = "`" * (_longest_backticks(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def _address(text: str) -> str:
    """A path or an address as the target of a Markdown link: nothing in it ends the link or the line."""
    return quote(text, safe="/:#?=&%@,;+~", errors="replace")


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _cut(text: str, length: int) -> str:
    """The first whole lines that fit, then `…`; a fence that was opened is closed."""
    if len(text) <= length:
        return text
    kept: list[str] = []
    left, fence = length - len("…\n"), ""
    for line in text.splitlines():
        ticks = match[0] if (match := re.match("`{3,}", line)) else ""
        inside = fence
        if ticks and not fence:
            inside = ticks
        elif fence and line == ticks and len(ticks) >= len(fence):
            inside = ""
        left -= len(line) + 1
        if left < len(inside) + 1:  # room for the line that closes the fence
            break
        fence = inside
        kept.append(line)
    return "\n".join([*kept, *([fence] if fence else []), "…"]) + "\n"


def render_array_note(array_id: str, tasks: Sequence[tuple[JobRecord, JobStatus]]) -> str:
    """The note's part as Markdown, without the markers, ending in a newline; `tasks` has at least one."""
    record = tasks[0][0]
    swept = list(dict.fromkeys(key for task, _ in tasks for key in point_of(task)))
    starts = dict.fromkeys(task.starts_from for task, _ in tasks)
    lines = [
        f"##### {array_id} - {heading_time(record.submitted)}",
        f"- {markdown_line(record.about or record.experiment)}",
        *([f"- why: {markdown_line(record.why)}"] if record.why else []),
        f"- sweep of {_of_all(record, len(tasks))}: {markdown_line(', '.join(swept) or 'rows written out')}",
        *overrides_line(record),
        f"- {markdown_line(what_line(record, seed='train.seed' not in swept))}",
        *(f"- starts from {markdown_line(text)}" for text in starts if text),
        f"- {_counts([status for _, status in tasks])}",
        *(
            f"- warning: {markdown_line(text)}"
            for text in dict.fromkeys(said for task, _ in tasks for said in task.warned)
        ),
        f"- folders {code_span(f'jobs/{array_id}_*')} · submitted by {code_span(shlex.join(record.command))}",
        "",
    ]
    lines += [
        f"- {code_span(task.id)} {markdown_line(point_text(task) or 'nothing changed')}: "
        f"{markdown_line(outcome_line(status))}"
        for task, status in tasks
    ]
    return "\n".join(lines) + "\n"


def _of_all(record: JobRecord, here: int) -> str:
    """How many jobs; a sweep that is larger than one array may be has several."""
    count = (record.sweep or {}).get("count")
    return f"{here}" if count in (None, here) else f"{here} of {count}"


def _counts(statuses: Sequence[JobStatus]) -> str:
    count = Counter(status.state for status in statuses)
    return ", ".join(f"{count[state]} {state}" for state in State if count[state])


# Errors of this package that say what to do themselves; what is behind a TrainingError may be anybody's code.
_SPEAKING = {
    *("CheckpointError", "ConfigError", "EnvironmentSpecError", "ExternalError", "LabError", "RecordError"),
    *("SpecError", "UsageError", "KeyboardInterrupt", "SystemExit"),
}


@dataclass(frozen=True)
class EndOfJob:
    """How a job ended, as far as its files tell."""

    why: Why | None
    error: str
    """Name of the Python error, empty where there was none."""
    resume: str
    """The command that continues from its last checkpoint; empty where there is no checkpoint."""
    again: str
    """The command that submits the same once more."""


def remedy(record: JobRecord, status: JobStatus, error: str, *, saved: bool, again: str) -> str:
    """What to do now, in one line; empty where nothing went wrong or the cause says it already.

    `error` is the name of the Python error that ended it, `saved` whether it has a checkpoint, `again` the command
    that makes the same job once more, as Markdown.
    """
    ended = status.state.ended or status.state is State.UNKNOWN
    if status.state is State.COMPLETED or not ended:
        return ""
    resume = f"`tdmpc-lab resume {record.id}`" if saved else ""
    ending = EndOfJob(status.why, error, resume, again)
    if status.names_command and not _of_memory(ending):
        return ""
    return _of_memory(ending, record) or _of_training(ending) or _of_end(record, status, ending)


def _of_memory(ending: EndOfJob, record: JobRecord | None = None) -> str:
    """Memory of the GPU, of the machine, of the job's allocation."""
    if ending.why is Why.GPU_MEMORY:
        return (
            "the GPU's memory is full: a smaller train.batch_size, planner.samples, train.envs or agent.hidden_dim, "
            "train.replay_device=host, or a larger GPU; `tdmpc-lab check` shows what each takes"
        )
    if ending.why is Why.ALLOCATION:
        had = record.resources.get("memory") if record is not None else None
        asked = f" (it had {had})" if had else ""
        return f"a larger slurm.memory{asked}, or a smaller train.replay_capacity{_then(ending)}"
    if ending.why is Why.HOST_MEMORY:
        return "the machine's memory is full: a smaller train.replay_capacity, or fewer jobs at once (--max-local)"
    return ""


def _of_training(ending: EndOfJob) -> str:
    """NaN, and errors of Python."""
    if ending.error == "NonFiniteError":
        on = f"; from its last good checkpoint: {ending.resume[:-1]} agent.lr=…`" if ending.resume else ""
        return f"a smaller agent.lr or agent.grad_clip, or a smaller reward.scale{on}"
    if ending.error and ending.error not in _SPEAKING and ending.why is not Why.DISK:
        return f"once the code is mended: {ending.resume or ending.again}"
    return ""


def _of_end(record: JobRecord, status: JobStatus, ending: EndOfJob) -> str:
    """Ended from outside."""
    on = ending.resume or ending.again
    if status.state is State.TIMEOUT:
        return f"a longer slurm.time, or a larger slurm.max_requeues; then {on}"
    if ending.why is Why.NODE:
        off = f"; to keep off that node: slurm.extra.exclude={status.node}" if status.node else ""
        return f"{on}{off}"
    if status.state is State.CANCELLED:
        return f"if it was a mistake: {on}"
    if ending.why is Why.KILLED or status.state is State.UNKNOWN:
        return f"the end of `jobs/{record.id}/log.err` may say why; then {on}"
    return ""


def _then(ending: EndOfJob) -> str:
    return f"; then {ending.resume or ending.again}"
