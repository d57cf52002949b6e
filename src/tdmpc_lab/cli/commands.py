"""The commands: each calls one function of `app` and prints what it gives. Talk goes to standard error with --json."""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdmpc_lab.cli.common import find_job_id as _job_id
from tdmpc_lab.cli.common import project_here as _project
from tdmpc_lab.cli.guard import warn_of_mistakes
from tdmpc_lab.cli.output import outlives_its_reader, print_json
from tdmpc_lab.cli.preflight import stop_on_errors
from tdmpc_lab.cli.repeats import refuse_many, without_repeats
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.text import count, duration

if TYPE_CHECKING:
    from tdmpc_lab.app.checks.estimate import RunTimeEstimate
    from tdmpc_lab.app.queue.status import JobView
    from tdmpc_lab.app.submit.code import JobCode
    from tdmpc_lab.app.submit.submit import Cluster, Plan, Submitted
    from tdmpc_lab.jobs.paths import Project

OK, FAILED = 0, 1


def submit(args: Namespace) -> int:
    """`submit SPEC... [key=value ...]`."""
    from tdmpc_lab.app.submit.resources import launch_overrides
    from tdmpc_lab.app.submit.specs import split_arguments
    from tdmpc_lab.app.submit.submit import choose_cluster, plan, settle

    project = _project()
    specs, overrides = split_arguments(args.words)
    cluster = choose_cluster(args.cluster)
    if args.after and cluster != "slurm":
        raise UsageError(f"--after is for SLURM jobs, and this would run on {cluster}: local jobs queue by themselves")
    light = cluster != "slurm" and not args.skip_preflight  # of a job on this machine the environment is looked at
    overrides += launch_overrides(project, args.profile, args.after, args.array_limit)
    plans = plan(project, specs, overrides, environments=light, sizes=not args.skip_preflight)
    if cluster == "slurm":
        plans = settle(project, plans)
    if args.again and args.skip_existing:
        raise UsageError("--again submits what is there already, --skip-existing leaves it out: give one of them")
    known = None
    if not args.again and cluster != "debug":  # which is for looking at one and the same thing many times
        plans, known = without_repeats(project, plans, args)
        if not plans:
            return _nothing_new(args)
    stop_on_errors(project, plans, cluster, args)
    plans = warn_of_mistakes(project, plans, cluster, args)
    if args.dry_run:
        return _dry_run(project, plans, cluster, args)
    return _launch(project, plans, cluster, args, None, known)


def _nothing_new(args: Namespace) -> int:
    """Every job is there already, and those are to be left out."""
    if args.json:
        print_json({"dry_run": True, "jobs": []} if args.dry_run else {"jobs": []})
    else:
        print("every job is there already: nothing to submit")
    return OK


def resume(args: Namespace) -> int:
    """`resume ID [key=value ...] [--steps N]`."""
    from tdmpc_lab.app.submit.restart import plan_resume
    from tdmpc_lab.app.submit.submit import choose_cluster, settle

    project = _project()
    cluster = choose_cluster(args.cluster)
    ready = [plan_resume(project, _job_id(project, args.job), args.overrides, args.steps)]
    if cluster == "slurm":
        ready = settle(project, ready)
    stop_on_errors(project, ready, cluster, args)
    ready = warn_of_mistakes(project, ready, cluster, args)
    launch = _dry_run if args.dry_run else _launch
    return launch(project, ready, cluster, args)


def rerun(args: Namespace) -> int:
    """`rerun ID [key=value ...]`."""
    from tdmpc_lab.app.submit.code import code_now
    from tdmpc_lab.app.submit.restart import plan_rerun
    from tdmpc_lab.app.submit.submit import choose_cluster, settle

    project = _project()
    ready, code = plan_rerun(project, _job_id(project, args.job), args.overrides)
    cluster = choose_cluster(args.cluster)
    if cluster == "slurm":
        (ready,) = settle(project, [ready])
    of_now = code is None
    if code is None:
        assert ready.rerun_of is not None
        print(f"note: no code was kept for {ready.rerun_of.id}: this runs the code as it is now", file=sys.stderr)
        code = code_now(project, cluster, write=not args.dry_run)
    elif cluster == "debug":
        raise UsageError("a debug run uses the code of its own process, not what the old job ran; use --cluster local")
    stop_on_errors(project, [ready], cluster, args, try_agents=of_now)
    plans = warn_of_mistakes(project, [ready], cluster, args)
    launch = _dry_run if args.dry_run else _launch
    return launch(project, plans, cluster, args, code)


def _launch(
    project: Project,
    plans: Sequence[Plan],
    cluster: Cluster,
    args: Namespace,
    code: JobCode | None = None,
    known: frozenset[str] | None = None,
) -> int:
    """Submit; `code` is what the jobs run, by default the project's code as it is now. `known` are the jobs that are
    the same, where no others are to be; None where they do not matter."""
    from tdmpc_lab.app.checks.repeats import recording
    from tdmpc_lab.app.joblog.log import refresh_rollup
    from tdmpc_lab.app.submit.code import code_now

    runs = code or code_now(project, cluster, snapshot=not args.no_snapshot)
    if runs.warning:
        print(f"warning: {runs.warning}", file=sys.stderr)
    done: list[Submitted] = []
    outcome = OK
    try:
        with contextlib.nullcontext() if known is None else recording(project, plans, known, lambda: runs):
            _submit_groups(project, plans, cluster, args, runs, done)
    finally:
        if done and cluster != "debug":  # whose own process has done it at its end
            refresh_rollup(project)
    if cluster == "debug":
        outcome = OK if len(done) == len(plans) and _completed(project, [job.id for job in done]) else FAILED
    elif args.wait:
        outcome = _wait(project, {job.id: job.steps for job in done}, args.json)
    if args.json:
        from tdmpc_lab.app.submit.submit import run_id_of

        jobs = [{**job.as_dict(), "mlflow_run": run_id_of(project.job(job.id))} for job in done]
        print_json({"jobs": jobs})
    return outcome


def _submit_groups(
    project: Project, plans: Sequence[Plan], cluster: Cluster, args: Namespace, code: JobCode, done: list[Submitted]
) -> None:
    """Record and start every job, told one after the other; `done` gets them. Raises as `submit_group`."""
    from tdmpc_lab.app.submit.submit import groups, submit_group

    for group in groups(plans, cluster):

        def on_recorded(jobs: Sequence[Submitted], group: Sequence[Plan] = group) -> None:
            done.extend(jobs)
            with outlives_its_reader():  # a recorded job is to be started, whoever still reads
                _announce(project, group, jobs, args)

        before = len(done)
        try:
            submit_group(project, group, cluster, code=code, max_local=args.max_local, on_recorded=on_recorded)
        except Exception:
            if cluster != "debug":
                if before:
                    ids = ", ".join(job.id for job in done[:before])
                    print(f"submitted before the error: {ids}", file=sys.stderr)
                raise
            traceback.print_exc()  # the point of debug is the whole traceback; the job's files have it too


def _announce(project: Project, group: Sequence[Plan], jobs: Sequence[Submitted], args: Namespace) -> None:
    for array, of_array in itertools.groupby(zip(group, jobs, strict=True), key=lambda pair: pair[1].array):
        pairs = list(of_array)
        ready, job = pairs[0]
        lines = _array_lines(project, array, pairs) if array else _job_lines(project, ready, job)
        if not args.wait and job.cluster != "debug":
            lines.append(f"  watch   tdmpc-lab wait {array or job.id}")
        _say("\n".join(lines), args.json)


def _job_lines(project: Project, ready: Plan, job: Submitted) -> list[str]:
    from tdmpc_lab.jobs.record import read_record

    spec = ready.item.spec
    place = " (here, debug)" if job.cluster == "debug" else ""
    return [
        f"job {job.id}{place}: {spec.name}" + (f" - {spec.about}" if spec.about else ""),
        *([f"  rerun   of {ready.rerun_of.id}"] if ready.rerun_of else []),
        *([f"  sweep   {ready.item.point}"] if ready.item.point else []),
        *([f"  starts  from {ready.start}"] if ready.start else []),
        *(f"  changed {change}" for change in ready.diff),
        *([f"  code    {code}"] if (code := read_record(project.job(job.id)).code) else []),
        f"  folder  {job.folder.relative_to(project.root)}",
        f"  note    {job.note.relative_to(project.root)}",
    ]


def _array_lines(project: Project, array: str, pairs: Sequence[tuple[Plan, Submitted]]) -> list[str]:
    from tdmpc_lab.jobs.record import read_record

    spec, job = pairs[0][0].item.spec, pairs[0][1]
    limit = f", at most {spec.slurm.array_limit} at once" if spec.slurm.array_limit else ""
    return [
        f"array {array} of {len(pairs)} jobs{limit}: {spec.name}" + (f" - {spec.about}" if spec.about else ""),
        *(f"  {job.id}  {ready.item.point}" for ready, job in pairs),
        *(f"  starts  from {start}" for start in dict.fromkeys(str(r.start) for r, _ in pairs if r.start)),
        *([f"  code    {code}"] if (code := read_record(project.job(job.id)).code) else []),
        f"  folders {job.folder.relative_to(project.root)} …",
        f"  note    {project.note(array).relative_to(project.root)}, and one for each job",
    ]


def _dry_run(
    project: Project,
    plans: Sequence[Plan],
    cluster: Cluster,
    args: Namespace,
    code: JobCode | None = None,
) -> int:
    from tdmpc_lab.app.submit.code import code_now
    from tdmpc_lab.app.submit.submit import dry_run, groups

    code = code or code_now(project, cluster, snapshot=not args.no_snapshot, write=False)
    estimates: dict[str, RunTimeEstimate | None] = {}
    together = groups(plans, "slurm")  # told together wherever they run
    reports = [
        [dry_run(project, ready, cluster, code, estimates, tasks=len(group)) for ready in group] for group in together
    ]
    if args.json:
        print_json({"dry_run": True, "jobs": [report for group in reports for report in group]})
        return OK
    for group, group_reports in zip(together, reports, strict=True):
        _show_dry_run(group, group_reports)
    return OK


def _show_dry_run(group: Sequence[Plan], reports: Sequence[dict[str, Any]]) -> None:
    """The jobs, then once what they have in common: the script, and what the spec sets."""
    last = reports[-1]
    what = f"{count(len(group), 'job')} would run" if len(group) > 1 else "would run"
    print(f"{last['name']}: {what} on {last['cluster']}; nothing was written")
    for plan, report in zip(group, reports, strict=True):
        if plan.item.point is not None:
            print(f"  {plan.item.point}")
        if old := report["goes_on_from"]:
            print(f"  goes on from {old['job']} at step {old['step']:,} of {plan.item.spec.train.steps:,}")
        if plan.start is not None:
            print(f"  starts from {plan.start}")
        for change in report["diff"]:
            print(f"  changed {change}")
        print(f"  takes {_estimate(report)}")
    if last["sbatch"]:
        print(f"\nthe script for sbatch{_begin_explained(last['sbatch'])}:\n\n{last['sbatch'].strip()}\n")
    of = f" of {group[-1].item.point}" if len(group) > 1 else ""
    print(f"what is set{of}; the default of everything else is with --json\n")
    print(last["set"], end="")


def _begin_explained(script: str) -> str:
    from tdmpc_lab.launch.sbatch import BEGIN

    if f"--begin={BEGIN}" not in script:
        return ""
    return f" (--begin={BEGIN} is lifted as soon as the job's folder is complete: then it starts when there is room)"


def _estimate(report: dict[str, Any]) -> str:
    estimate = report["estimate"]
    if estimate is None:
        return "an unknown time: no job like it has run to its end yet"
    return f"about {duration(estimate['seconds'])} ({estimate['basis']})"


def cancel(args: Namespace) -> int:
    """`cancel ID... [--experiment NAME] [--save] [--yes]`."""
    from tdmpc_lab.app.queue.cancel import cancel as stop
    from tdmpc_lab.app.queue.cancel import chosen

    if not args.jobs and args.experiment is None:
        raise UsageError("name the jobs to cancel, or give --experiment NAME")
    project = _project()
    ids = chosen(project, [_job_id(project, job) for job in args.jobs], args.experiment)
    refuse_many(ids, args.yes)
    done = stop(project, ids, save=args.save, tell=lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print_json(done)
        return OK
    for job_id, what in done.items():
        print(f"{job_id}: {what}")
    if not done:
        print(f"no job of {args.experiment} waits or runs; nothing was done")
    return OK


def wait(args: Namespace) -> int:
    """`wait ID...`."""
    from tdmpc_lab.app.queue.status import job_views

    project = _project()
    ids = [paths.id for paths in project.require_jobs([_job_id(project, job) for job in args.jobs])]
    steps = {v.id: v.status.steps if v.status else 0 for v in job_views(project, ids)}
    code = _wait(project, steps, args.json)
    if args.json:
        print_json([view.as_dict() for view in job_views(project, ids)])
    return code


def _wait(project: Project, steps: dict[str, int], as_json: bool) -> int:
    """Follow the jobs to their end; 0 if all completed."""
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.status import wait as follow
    from tdmpc_lab.training.progress import make_progress

    progress = make_progress(steps)
    try:
        views = follow(project, list(steps), progress)
    except KeyboardInterrupt:
        progress.close()
        print(f"\nthe job goes on; follow it with: tdmpc-lab wait {' '.join(steps)}", file=sys.stderr)
        raise
    progress.close()
    for view in views:
        _say(_outcome(view), as_json)
    catch_up_notes(project, views)
    return OK if _completed(project, list(steps)) else FAILED


def _completed(project: Project, ids: Sequence[str]) -> bool:
    from tdmpc_lab.app.queue.status import job_views
    from tdmpc_lab.jobs.state import State

    views = job_views(project, ids)
    return all(v.status is not None and v.status.state is State.COMPLETED for v in views)


def _outcome(view: JobView) -> str:
    if view.status is None:
        return f"{view.id}: UNKNOWN: {view.problem}"
    from tdmpc_lab.notes.render import outcome_line

    return f"{view.id}: {outcome_line(view.status)}"


def ui(args: Namespace) -> int:
    """`ui`."""
    from tdmpc_lab.app.mlflow.ui import make_ready, run_ui, ui_for

    project = _project()
    found = ui_for(project, args.port, args.which)
    if args.print_only:
        print(found.shell_line())
        return OK
    if problem := make_ready(project):
        print(f"warning: the ready views are as they were: {problem}", file=sys.stderr)
    if found.running is not None:
        r = found.running
        print(f"MLflow for {project.root} runs already: process {r.pid} of {r.user} on {r.host}", file=sys.stderr)
        print(f"from another machine, first: {found.tunnel}", file=sys.stderr)
    if found.command is None:
        print(found.url)
        return OK if problem is None else ExternalError.exit_code
    print(f"MLflow for {project.root}: {found.url} (answers after 5 to 15 seconds)", file=sys.stderr)
    print(f"from another machine, first: {found.tunnel}", file=sys.stderr)
    print("end it with Ctrl-C", file=sys.stderr)
    run_ui(found)
    return FAILED


def describe(args: Namespace) -> int:
    """`describe SPEC`."""
    from tdmpc_lab.app.agents.describe import describe_spec

    report = describe_spec(_project(), args.spec, args.overrides, args.obs_dim, args.action_dim)
    if args.json:
        print_json(report.as_dict())
    else:
        print(report)
    return OK


def bench(args: Namespace) -> int:
    """`bench [SPEC]`."""
    from tdmpc_lab.app.agents.bench import run_bench

    if args.spec is None and (args.no_reference or args.obs_dim is not None or args.action_dim is not None):
        raise UsageError("bench: a spec is needed for --no-reference, --obs-dim and --action-dim")
    result = run_bench(
        None if args.spec is None else _project(),
        args.spec,
        args.overrides,
        args.obs_dim,
        args.action_dim,
        repeats=args.repeats,
        reference=not args.no_reference,
    )
    if args.json:
        print_json(result.as_dict())
    else:
        print(*result.lines(), sep="\n")
    return OK


def schema(_args: Namespace) -> int:
    """`schema`."""
    from tdmpc_lab.config.json_schema import json_schema

    print_json(json_schema())
    return OK


def _say(text: str, as_json: bool) -> None:
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)
