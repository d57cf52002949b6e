"""`submit`, `resume`, `rerun`, `check`: jobs are checked, asked about, recorded and started; or only checked."""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.agents.describe import check_spec
from tdmpc_lab.app.checks.blamed import find_blamed, which_of, with_warnings
from tdmpc_lab.app.checks.lint import check_rules, lint, with_advice
from tdmpc_lab.app.checks.preflight import check_jobs
from tdmpc_lab.app.checks.repeats import find_repeats, recording
from tdmpc_lab.app.joblog.write import refresh_rollup
from tdmpc_lab.app.submit.code import code_now
from tdmpc_lab.app.submit.resources import launch_overrides
from tdmpc_lab.app.submit.restart import plan_rerun, plan_resume
from tdmpc_lab.app.submit.specs import split_arguments
from tdmpc_lab.app.submit.submit import choose_cluster, dry_run, groups, plan, settle, submit_group
from tdmpc_lab.cli.common import (
    FAILED,
    OK,
    add_json,
    add_profile,
    add_spec_and_sizes,
    find_job_id,
    outlives_its_reader,
    positive,
    print_json,
    project_here,
    shortened,
    yes,
)
from tdmpc_lab.cli.queue import all_completed, follow, say
from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.launch.sbatch import BEGIN
from tdmpc_lab.text import count, duration

if TYPE_CHECKING:
    from tdmpc_lab.app.checks.estimate import RunTimeEstimate
    from tdmpc_lab.app.submit.code import JobCode
    from tdmpc_lab.app.submit.submit import Cluster, JobPlan, Submitted
    from tdmpc_lab.jobs.paths import Project


def submit(args: Namespace) -> int:
    """`submit SPEC... [key=value ...]`."""
    project = project_here()
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
    project = project_here()
    cluster = choose_cluster(args.cluster)
    ready = [plan_resume(project, find_job_id(project, args.job), args.overrides, args.steps)]
    if cluster == "slurm":
        ready = settle(project, ready)
    stop_on_errors(project, ready, cluster, args)
    ready = warn_of_mistakes(project, ready, cluster, args)
    launch = _dry_run if args.dry_run else _launch
    return launch(project, ready, cluster, args)


def rerun(args: Namespace) -> int:
    """`rerun ID [key=value ...]`."""
    project = project_here()
    ready, code = plan_rerun(project, find_job_id(project, args.job), args.overrides)
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
    plans: Sequence[JobPlan],
    cluster: Cluster,
    args: Namespace,
    code: JobCode | None = None,
    known: frozenset[str] | None = None,
) -> int:
    """Submit; `code` is what the jobs run, by default the project's code as it is now. `known` are the jobs that are
    the same, where no others are to be; None where they do not matter."""
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
        outcome = OK if len(done) == len(plans) and all_completed(project, [job.id for job in done]) else FAILED
    elif args.wait:
        outcome = follow(project, {job.id: job.steps for job in done}, args.json)
    if args.json:
        from tdmpc_lab.app.submit.submit import run_id_of

        jobs = [{**job.as_dict(), "mlflow_run": run_id_of(project.job(job.id))} for job in done]
        print_json({"jobs": jobs})
    return outcome


def _submit_groups(
    project: Project, plans: Sequence[JobPlan], cluster: Cluster, args: Namespace, code: JobCode, done: list[Submitted]
) -> None:
    """Record and start every job, told one after the other; `done` gets them. Raises as `submit_group`."""
    for group in groups(plans, cluster):

        def on_recorded(jobs: Sequence[Submitted], group: Sequence[JobPlan] = group) -> None:
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


def _announce(project: Project, group: Sequence[JobPlan], jobs: Sequence[Submitted], args: Namespace) -> None:
    for array, of_array in itertools.groupby(zip(group, jobs, strict=True), key=lambda pair: pair[1].array):
        pairs = list(of_array)
        ready, job = pairs[0]
        lines = _array_lines(project, array, pairs) if array else _job_lines(project, ready, job)
        if not args.wait and job.cluster != "debug":
            lines.append(f"  watch   tdmpc-lab wait {array or job.id}")
        say("\n".join(lines), args.json)


def _job_lines(project: Project, ready: JobPlan, job: Submitted) -> list[str]:
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


def _array_lines(project: Project, array: str, pairs: Sequence[tuple[JobPlan, Submitted]]) -> list[str]:
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
    plans: Sequence[JobPlan],
    cluster: Cluster,
    args: Namespace,
    code: JobCode | None = None,
) -> int:
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


def _show_dry_run(group: Sequence[JobPlan], reports: Sequence[dict[str, Any]]) -> None:
    """The jobs, then once what they have in common: the script, and what the spec sets."""
    last = reports[-1]
    what = f"{count(len(group), 'job')} would run" if len(group) > 1 else "would run"
    print(f"{last['name']}: {what} on {last['cluster']}; nothing was written")
    for ready, report in zip(group, reports, strict=True):
        if ready.item.point is not None:
            print(f"  {ready.item.point}")
        if old := report["goes_on_from"]:
            print(f"  continues from {old['job']} at step {old['step']:,} of {ready.item.spec.train.steps:,}")
        if ready.start is not None:
            print(f"  starts from {ready.start}")
        for change in report["diff"]:
            print(f"  changed {change}")
        print(f"  takes {_estimate(report)}")
    if last["sbatch"]:
        print(f"\nthe script for sbatch{_begin_explained(last['sbatch'])}:\n\n{last['sbatch'].strip()}\n")
    of = f" of {group[-1].item.point}" if len(group) > 1 else ""
    print(f"what is set{of}; the default of everything else is with --json\n")
    print(last["set"], end="")


def _begin_explained(script: str) -> str:
    if f"--begin={BEGIN}" not in script:
        return ""
    return f" (--begin={BEGIN} is lifted as soon as the job's folder is complete: then it starts when there is room)"


def _estimate(report: dict[str, Any]) -> str:
    estimate = report["estimate"]
    if estimate is None:
        return "an unknown time: no job like it has run to its end yet"
    return f"about {duration(estimate['seconds'])} ({estimate['basis']})"


def stop_on_errors(
    project: Project, plans: Sequence[JobPlan], cluster: Cluster, args: Namespace, *, try_agents: bool = True
) -> None:
    """Check jobs for SLURM; warnings are told. A dry run needs no SLURM, so its absence is only told.

    Raises PreflightError with everything that would make a job fail or never start.
    """
    if cluster != "slurm" or args.skip_preflight:
        return

    check_rules(args.no_lint)
    dry = getattr(args, "dry_run", False)
    items = [plan.item for plan in plans]
    report = check_jobs(project, items, slurm=True, try_agents=try_agents, slurm_needed=not dry, off=args.no_lint)
    for finding in report.warnings:
        print(f"warning: {finding}", file=sys.stderr)
    report.raise_errors()


def add_submit(p: ArgumentParser) -> None:
    """The words of `submit`."""
    p.description = "Check specs, record one job each and start them. Nothing is written if anything is wrong."
    p.add_argument("words", nargs="+", metavar="SPEC|key=value", help="spec files, and overrides for all of them")
    _add_launch_options(p)
    _add_no_snapshot(p)
    p.add_argument(
        "--again",
        action="store_true",
        help="submit although a job of the same config and seed waits, runs or completed",
    )
    p.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out what waits, runs or completed already: of a sweep the missing points are submitted",
    )
    add_profile(p)
    p.add_argument(
        "--after",
        action="append",
        default=[],
        metavar="[KIND:]ID",
        help="SLURM starts the job when this one has finished well (afterok:ID, the default) or is over "
        "(afterany:ID); may be given several times",
    )
    p.add_argument(
        "--array-limit",
        type=positive,
        metavar="N",
        help="jobs of one sweep that run at once in SLURM: the same as slurm.array_limit=N",
    )
    _add_dry_run(p)
    p.set_defaults(run=submit, rest="words")


def add_resume(p: ArgumentParser) -> None:
    """The words of `resume`."""
    p.add_argument("job", metavar="ID")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the old job's config")
    p.add_argument("--steps", type=positive, metavar="N", help="environment steps in all: the same as train.steps=N")
    _add_launch_options(p)
    _add_no_snapshot(p)
    _add_dry_run(p)
    p.set_defaults(run=resume, rest="overrides")


def add_rerun(p: ArgumentParser) -> None:
    """The words of `rerun`."""
    p.description = "Do a job again from its beginning, as a new job, with the config and the code that it ran."
    p.add_argument("job", metavar="ID", help="a job id, or `last`")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the old job's config")
    _add_launch_options(p)
    _add_dry_run(p)
    p.set_defaults(run=rerun, rest="overrides")


def _add_launch_options(p: ArgumentParser) -> None:
    p.add_argument(
        "--cluster",
        choices=["auto", "local", "slurm", "debug"],
        default="auto",
        help="auto: slurm where sbatch exists, else local. local: a process of its own on this machine. "
        "debug: in this process, with its traceback",
    )
    p.add_argument(
        "--wait",
        action="store_true",
        help="show the progress until the job ends; its outcome is the exit code",
    )
    p.add_argument(
        "--max-local",
        type=positive,
        default=1,
        metavar="N",
        help="local jobs running at once; the others queue (default 1)",
    )
    p.add_argument(
        "--skip-preflight",
        action="store_true",
        help="do not try environment and agent, and do not compare what the job asks for to what the cluster has",
    )
    p.add_argument(
        "--no-lint",
        action="append",
        default=[],
        metavar="RULE",
        help="silence a rule of the advice on a config, as its warning names it; may be given several times",
    )
    p.add_argument(
        "--yes",
        action="store_true",
        help="do not ask when the job log holds a setting against the job; the warning stands in its note",
    )
    add_json(p)


def _add_no_snapshot(p: ArgumentParser) -> None:
    p.add_argument(
        "--no-snapshot",
        action="store_true",
        help="run the project's files as they are when the job starts; by default those of now are kept for it",
    )


def _add_dry_run(p: ArgumentParser) -> None:
    p.add_argument("--dry-run", action="store_true", help="check everything, show what would be done, do nothing")


def warn_of_mistakes(project: Project, plans: Sequence[JobPlan], cluster: Cluster, args: Namespace) -> list[JobPlan]:
    """The plans with their warnings, which go into the jobs' records and notes; those of `lint` are only told.

    At a terminal it asks about the others, unless told `--yes`, on a dry run or for debug.

    Raises UsageError where the answer is no, and for a rule that there is not.
    """
    items = [plan.item for plan in plans]
    advice = lint(project, plans, cluster, args.no_lint, environments=not args.skip_preflight)
    for finding, numbers in advice:
        where = which_of(items, numbers)
        print(f"warning: {f'{where}: ' if where else ''}{finding}", file=sys.stderr)
    plans = with_advice(plans, advice)
    found = find_blamed(project, items)
    for blamed in found:
        if blamed.good:
            good = ", ".join(entry.id for entry in blamed.good)
            print(f"note: {blamed.text}; but it was judged good in {good}", file=sys.stderr)
    against = [blamed for blamed in found if not blamed.good]
    for blamed in against:
        where = which_of(items, blamed.plans)
        print(f"warning: {f'{where}: ' if where else ''}{blamed.text}", file=sys.stderr)
    warned = with_warnings(plans, against)
    if not against or args.yes or getattr(args, "dry_run", False) or cluster == "debug":
        return warned
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("note: nobody can be asked here: submitted all the same, with the warning in the note", file=sys.stderr)
    elif not yes("submit all the same?"):
        raise UsageError("nothing was done")
    return warned


def without_repeats(
    project: Project, plans: Sequence[JobPlan], args: Namespace
) -> tuple[list[JobPlan], frozenset[str]]:
    """The plans that are to be submitted, and the jobs like them that are known of.

    Those that run or ran already are left out with `--skip-existing`, or where that is the answer at the terminal.
    Raises UsageError where the answer is no, or there is no terminal to ask at. A dry run only tells.
    """
    found = find_repeats(project, plans, lambda: code_now(project, "local", snapshot=not args.no_snapshot, write=False))
    for line in shortened(found.said):
        print(f"note: {line}", file=sys.stderr)
    others = [plan for number, plan in enumerate(plans) if number not in found.plans]
    if not found.refused:
        return list(plans), found.seen
    told = "\n".join(f"  {line}" for line in shortened(found.refused))
    head = "the same config and seed for a second time"
    if args.skip_existing:
        print(f"note: left out, {head}\n{told}", file=sys.stderr)
        return others, found.seen
    if args.dry_run:
        print(f"note: {head}; submit would ask\n{told}", file=sys.stderr)
        return list(plans), found.seen
    alone = f"the other {count(len(others), 'job')} alone"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        skip = f"--skip-existing: {alone}; " if others else ""
        raise UsageError(f"{head}; nothing was done ({skip}--again: submit all the same)\n{told}")
    print(f"{head}\n{told}", file=sys.stderr)
    if yes("submit all the same?"):
        return list(plans), found.seen
    if others and yes(f"submit {alone}?"):
        return others, found.seen
    raise UsageError("nothing was done")


_GIB = 2**30


def check(args: Namespace) -> int:
    """`check SPEC`."""
    project = project_here()
    slurm = choose_cluster(args.cluster) == "slurm"
    overrides = args.overrides + launch_overrides(project, args.profile, [])
    facts, report = check_spec(project, args.spec, overrides, args.obs_dim, args.action_dim, slurm=slurm)
    if args.json:
        print_json(facts)
    else:
        _show(facts)
    for finding in report.findings:
        print(f"{finding.level}: {finding}", file=sys.stderr)
    return min((finding.exit_code for finding in report.errors), default=OK)


def _show(facts: dict[str, Any]) -> None:
    points = f"; {facts['points']} points, described is the first" if facts["points"] > 1 else ""
    print(f"{facts['spec']}: the spec is valid{points}")
    if "device" not in facts:
        return
    if facts["environment_steps"] is None:
        print(f"environment: left out; sizes as given, {facts['observation_dim']} and {facts['action_dim']}")
    else:
        print(
            f"environment: made and stepped {count(facts['environment_steps'], 'time')}; observation "
            f"{facts['observation_dim']}, action {facts['action_dim']}, episodes of "
            f"{count(facts['episode_length'], 'step')}"
        )
    print(f"agent: {facts['parameters']:,} parameters; one plan and one update ran on {facts['device']}")
    memory = {name: f"{size / _GIB:.2f}" for name, size in facts["device_memory"].items()}
    print(
        f"memory: about {memory['total']} GiB on the training device at full size (weights {memory['weights']}, "
        f"gradients and Adam {memory['training']}, an update {memory['update']}, a plan {memory['plan']})"
    )


def add_check(p: ArgumentParser) -> None:
    """The words of `check`."""
    add_spec_and_sizes(p)
    add_profile(p)
    p.add_argument(
        "--cluster",
        choices=["auto", "local", "slurm"],
        default="auto",
        help="where the job would run; auto: slurm where sbatch exists, else local",
    )
    p.set_defaults(run=check, rest="overrides")
