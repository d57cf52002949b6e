"""What the cluster looks like, as the texts of its configuration files. Pure: nothing is read or written here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODES = {"tcml-node1": "2080ti", "tcml-node2": "2080ti", "tcml-node3": "A4000", "tcml-node4": "A4000"}
GPUS_PER_NODE = 4
DATABASE = "slurm_acct_db"

# One plain pair per daemon: the ports are on 127.0.0.1, and the database holds nothing but this cluster's jobs.
DATABASE_USER, DATABASE_PASSWORD = "slurm", "slurm-sim"

# `urgent` preempts the others. In `week` the job it preempts is warned: its own --signal at once, SIGTERM about 30 s
# later. Elsewhere it gets SIGTERM at once and SIGKILL after KillWait.
PARTITIONS = {
    "test": "Default=YES MaxTime=15:00 PriorityTier=1",
    "day": "MaxTime=1-00:00:00 PriorityTier=1",
    "week": "MaxTime=7-00:00:00 PriorityTier=1 GraceTime=20",
    "month": "MaxTime=30-00:00:00 PriorityTier=1",
    "urgent": "MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Everything that differs between two clusters."""

    folder: Path
    host: str
    user: str
    ports: dict[str, int]
    """By daemon: slurmctld, slurmdbd, mariadbd, and each node's name."""
    accounting: bool
    first_job_id: int

    @property
    def slurm_conf(self) -> Path:
        """What SLURM_CONF has to name."""
        return self.folder / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """Where the daemons and commands of this cluster prove who they are."""
        return self.folder / "run" / "munge.socket"


def slurm_conf(layout: Layout) -> str:
    """The text of slurm.conf: one for the controller, the nodes and the commands."""
    d, ports = layout.folder, layout.ports
    accounting = (
        f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports["slurmdbd"]}
AccountingStoragePass={layout.munge_socket}
AccountingStorageTRES=gres/gpu
"""
        if layout.accounting
        else "AccountingStorageType=accounting_storage/none\n"
    )
    nodes = "".join(
        f"NodeName={name} NodeHostname={layout.host} NodeAddr=127.0.0.1 Port={ports[name]} CPUs=16 RealMemory=64000"
        f" Gres=gpu:{gpu}:{GPUS_PER_NODE} State=UNKNOWN\n"
        for name, gpu in NODES.items()
    )
    partitions = "".join(f"PartitionName={name} Nodes=ALL {rest}\n" for name, rest in PARTITIONS.items())
    return f"""# Written by slurm-sim; changes are lost.
ClusterName=tcmlsim
SlurmctldHost={layout.host}(127.0.0.1)
SlurmctldPort={ports["slurmctld"]}
SlurmUser={layout.user}
SlurmdUser={layout.user}
AuthType=auth/munge
# A requeued job starts again only when its old credential has expired; SLURM's default is 120 s.
AuthInfo=socket={layout.munge_socket},cred_expire=10
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool/%n
SlurmctldPidFile={d}/run/slurmctld.own.pid
SlurmdPidFile={d}/run/%n.own.pid
SlurmctldLogFile={d}/log/slurmctld.log
SlurmdLogFile={d}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MailProg=/bin/true
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
PropagateResourceLimits=NONE
# Nodes may declare more processors than there are.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=1,sched_min_interval=100000
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
JobRequeue=1
FirstJobId={layout.first_job_id}
MaxArraySize=1001
MinJobAge=300
KillWait=5
SlurmdTimeout=10
InactiveLimit=0
ReturnToService=2
TreeWidth=65533
{accounting}
{nodes}
{partitions}"""


def gres_conf(layout: Layout) -> str:
    """The text of gres.conf. The devices are files of no meaning: they make SLURM set CUDA_VISIBLE_DEVICES."""
    lines = [
        f"NodeName={name} Name=gpu Type={gpu} File={layout.folder}/dev/gpu[0-{GPUS_PER_NODE - 1}]\n"
        for name, gpu in NODES.items()
    ]
    return "AutoDetect=off\n" + "".join(lines)


def slurmdbd_conf(layout: Layout) -> str:
    """The text of slurmdbd.conf, which only its user may read."""
    d, ports = layout.folder, layout.ports
    return f"""AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost={layout.host}
DbdAddr=127.0.0.1
DbdPort={ports["slurmdbd"]}
SlurmUser={layout.user}
LogFile={d}/log/slurmdbd.log
PidFile={d}/run/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports["mariadbd"]}
StorageUser={DATABASE_USER}
StoragePass={DATABASE_PASSWORD}
StorageLoc={DATABASE}
"""


def database_setup() -> str:
    """The statements that MariaDB runs at every start."""
    who = f"'{DATABASE_USER}'@'127.0.0.1'"
    return (
        f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
        f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY '{DATABASE_PASSWORD}';\n"
        f"GRANT ALL ON {DATABASE}.* TO {who};\n"
    )
