"""Why a job waits in SLURM's queue, in plain words; SLURM's own word stays beside them, to look it up by."""

from __future__ import annotations

LIMITED_BY_PARTITION = "PartitionTimeLimit"

_RELEASE = "let it go with: scontrol release {job}"
_WORDS = {
    "Priority": "other jobs go first",
    "Resources": "it is next, as soon as there is room",
    "Dependency": "another job has to end first",
    "DependencyNeverSatisfied": "it will never start: the job it depends on did not end as asked; cancel it: "
    "tdmpc-lab cancel {job}",
    "BeginTime": "it has a time to begin; SLURM also waits some minutes before it starts a job again",
    "JobHeldUser": f"it is held; {_RELEASE}",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was started again as often as this cluster allows, and is held; an administrator can let "
    "it go",
    "job requeued in held state": f"it was put back into the queue and is held; {_RELEASE}",
    "JobArrayTaskLimit": "its sweep runs as many jobs at once as it may",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs to run now",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows",
    "ReqNodeNotAvail": "the nodes it needs are down, reserved or busy",
    "NodeDown": "a node it needs is down",
    "BadConstraints": "no node has what it asks for",
    "Reservation": "its reservation has not begun",
    "Licenses": "a licence it needs is in use",
    "InvalidAccount": "its account does not exist",
    "InvalidQOS": "its quality of service does not exist",
    "Cleaning": "SLURM still clears up after its last attempt",
    "Prolog": "its node is being prepared",
    "launch failed requeued held": f"it could not be launched and is held; {_RELEASE}",
}
_KINDS = (
    ("QOS", "a limit of its quality of service is reached"),
    ("Assoc", "a limit of your account is reached"),
    ("MaxJobs", "you have as many jobs running as you may"),
    ("Nodes required for job", "the nodes it needs are down, drained or reserved"),
)


def reason_in_words(job_id: str, reason: str, partition: str, asked: str, limit: str | None) -> str:
    """The reason that SLURM gives for a job that waits; `asked` is its time limit, `limit` the partition's.

    A reason that is not known here is passed on as it is.
    """
    if reason == LIMITED_BY_PARTITION:
        its = f"the time limit of partition {partition}" if limit is None else f"the partition's time limit is {limit}"
        return f"{its}, you asked for {asked}" if limit else f"it asks for more time than {its}"
    # ReqNodeNotAvail, UnavailableNodes:node7
    word = reason.split(",", maxsplit=1)[0].strip("() ")
    text = _WORDS.get(word) or next((text for start, text in _KINDS if word.startswith(start)), None)
    return f"{text.format(job=job_id)} ({reason})" if text else reason


def held_in_words(job_id: str) -> str:
    """What is to be said of a job in a held state for which SLURM gives no reason."""
    return f"it is held; {_RELEASE.format(job=job_id)}"
