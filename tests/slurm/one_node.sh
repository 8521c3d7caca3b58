#!/usr/bin/env bash
# Sourced: `start_slurm FOLDER` makes this machine a Slurm cluster of one node, `stop_slurm` ends it.
# No systemd, cgroups, munge or accounting: daemons of this user (who must be root), state in FOLDER, SLURM_CONF set.

start_slurm() {
    # Ports: not those of daemons that outlived another run, and below the kernel's ephemeral ones.
    local folder="$1" host port=$((20000 + 2 * ($$ % 6000)))
    host="$(hostname -s)"
    mkdir -p "$folder/state" "$folder/spool"
    export SLURM_CONF="$folder/slurm.conf"
    cat > "$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
KillWait=10
MinJobAge=3600
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    slurmctld 9>&-
    slurmd 9>&-
    for _ in $(seq 600); do
        [ "$(sinfo -h -o %T 2>/dev/null)" != idle ] || return 0
        sleep 0.2
    done
    tail -n 5 "$folder"/*.log >&2
    return 1
}

# Ends the daemons, and waits for them: they write into the folder until then.
stop_slurm() {
    local daemons
    daemons="$(cat "$(dirname "${SLURM_CONF:-}")"/*.pid 2>/dev/null || true)"
    scontrol shutdown >/dev/null 2>&1 || true
    wait_for 30 ended $daemons || true
}

# Whether none of these processes is left.
ended() { ! kill -0 "$@" 2>/dev/null; }

# The state of a job, or GONE once Slurm has forgotten it.
job_state() { scontrol show job "$1" 2>/dev/null | sed -n 's/^ *JobState=\([A-Z_]*\).*/\1/p' | grep . || echo GONE; }

# wait_for SECONDS COMMAND...: until the command succeeds; fails when the time is over.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "timed out: $*" >&2; return 1; }
        sleep 0.2
    done
}
