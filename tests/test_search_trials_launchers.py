"""What Slurm, torchrun and others leave in the environment is no business of a trial; a group speaks where Ray does."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import ray
from noise_study import RECIPE, make_context
from pytorch_lightning.utilities import rank_zero_only

from search import cluster
from search.capacity.probes import Probe
from search.environment import forget_launcher, socket_variables
from search.records.job import Job
from search.records.trial_record import TrialRecord, read_failure
from search.trials import trainable, watchdog
from search.trials.context import Link
from search.trials.interrupt import Interrupt
from search.trials.launchers import OwnPlace, interface_of, prepare_worker
from search.trials.run_trials import run_jobs

psutil = pytest.importorskip("psutil")  # Ray brings it, and puts it into the path
TESTS = Path(__file__).resolve().parent
NOWHERE = "10.255.255.1"

LEFT_BEHIND: dict[str, dict[str, str]] = {
    "slurm": {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "2",
              "SLURM_LOCALID": "2", "SLURM_NODEID": "1", "SLURM_NODELIST": "node[1-4]", "SLURM_NTASKS_PER_NODE": "1"},
    "lsf": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_LOCAL_RANK": "1",
            "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "4", "LSB_MCPU_HOSTS": "a 1 b 4"},
    "mpi": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "3",
            "PMI_SIZE": "4", "PMI_RANK": "3", "PMIX_RANK": "3"},
    "torchrun": {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1",
                 "MASTER_ADDR": NOWHERE, "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
                 "TORCHELASTIC_USE_AGENT_STORE": "True"},
    "kubernetes": {"KUBERNETES_SERVICE_HOST": NOWHERE, "KUBERNETES_PORT": f"tcp://{NOWHERE}:443",
                   "MASTER_PORT": f"tcp://{NOWHERE}:80", "MASTER_ADDR": "master", "RANK": "1", "WORLD_SIZE": "4",
                   "TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b", "XRT_TPU_CONFIG": f"worker;0;{NOWHERE}:8470"},
    "lightning": {"PL_TRAINER_MAX_STEPS": "1", "PL_TRAINER_NUM_NODES": "2", "PL_TRAINER_FAST_DEV_RUN": "1",
                  "NODE_RANK": "1"},
}
"""Variables by who leaves them."""

ODD = {name: value for variables in LEFT_BEHIND.values() for name, value in dict.fromkeys(variables, "").items()} | {
    "RANK": "abc", "WORLD_SIZE": "x", "SLURM_NTASKS": "4(x2)", "LOCAL_RANK": "1,2", "PL_TRAINER_MAX_STEPS": "1"}
"""All of them, as a template that nobody filled in leaves them."""


@pytest.fixture
def left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was started with the variables."""
    for name, value in LEFT_BEHIND[request.param].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as Lightning reads it from them when it is imported


@pytest.mark.parametrize("left_behind", LEFT_BEHIND, indirect=True)
def test_trial_trains_alone_whatever_a_launcher_left(left_behind: None, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "TuneLink", Link)
    context = make_context(tmp_path)
    trainable._train_here(Job(id="0000", recipe=RECIPE, seed=0), context, time.time())
    record = TrialRecord.load(context.folder / "0000")
    assert (len(record.epochs), record.workers, record.is_complete) == (RECIPE.training.epochs, 1, True)
    assert rank_zero_only.rank == 0  # else its W&B run would be nobody's


@pytest.mark.parametrize("left_behind", ["slurm", "torchrun", "lightning"], indirect=True)
def test_share_of_a_node_is_measured_whatever_a_launcher_left(left_behind: None, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.capacity.probes.WINDOW_S", 0.05)
    probe = Probe(make_context(tmp_path), RECIPE)
    probe.build()
    assert probe.speed(1) > 0


@pytest.mark.parametrize("left_behind", LEFT_BEHIND, indirect=True)
def test_own_place_asks_nobody(left_behind: None) -> None:
    place = OwnPlace(rank=3, world_size=4, local_rank=1, node_rank=1)
    place.set_global_rank(0)
    place.set_world_size(1)
    assert (place.global_rank(), place.world_size(), place.local_rank(), place.node_rank()) == (3, 4, 1, 1)
    assert place.creates_processes_externally and rank_zero_only.rank == 3


def test_launcher_is_forgotten_and_what_a_person_set_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "1", "RANKING": "1", "SLURM_JOB_ID": "7"}
    for name, value in (LEFT_BEHIND["torchrun"] | kept).items():
        monkeypatch.setenv(name, value)
    forget_launcher()
    assert not set(LEFT_BEHIND["torchrun"]) & set(os.environ)
    assert {name: os.environ[name] for name in kept} == kept


def test_ranks_that_are_no_numbers_are_nobodys() -> None:
    """Lightning reads them as it is imported, in the driver and in every worker."""
    program = ("import os, models.finetuning; print([os.environ.get(name) for name in ('RANK', 'SLURM_JOB_ID', "
               "'SLURM_NODEID')])")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=TESTS.parent,
                         env=os.environ | ODD | {"SLURM_JOB_ID": "7", "SLURM_NODEID": "", "JSM_NAMESPACE_RANK": "-"})
    assert (ran.returncode, ran.stdout) == (0, "[None, '7', '']\n"), ran.stderr[-500:]


# --- interfaces -----------------------------------------------------------------------------------------------------


def test_interface_is_found_by_each_of_its_addresses() -> None:
    families = (socket.AF_INET, socket.AF_INET6)
    known = [(name, one.address) for name, addresses in psutil.net_if_addrs().items() for one in addresses
             if one.family in families and name != "lo"]
    for name, address in known:
        assert interface_of(address.partition("%")[0]) == name
    assert interface_of("127.0.0.1") is interface_of("127.0.1.1") is interface_of("::1") is None
    assert interface_of("203.0.113.77") is None  # of documentation alone


def test_group_speaks_through_the_interface_of_rays_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"lo": "127.0.0.1", "docker0": "172.17.0.1", "eth1": "10.0.0.7", "eth10": "10.0.1.7"}

    class Address:
        def __init__(self, address: str) -> None:
            self.address = address

    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {
        name: [Address("02:42:ac:11:00:02"), Address(address)] for name, address in addresses.items()})
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    prepare_worker()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth1"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "=eth1"  # else eth10 would do too


def test_interface_that_a_person_set_stays() -> None:
    assert socket_variables("eth1", {"GLOO_SOCKET_IFNAME": "ib0"}) == {"NCCL_SOCKET_IFNAME": "=eth1"}
    assert socket_variables("eth1", {"NCCL_SOCKET_IFNAME": "^docker"}) == {"GLOO_SOCKET_IFNAME": "eth1"}
    assert socket_variables(None, {}) == {}


# --- real groups ----------------------------------------------------------------------------------------------------


def train_in_ray(folder: Path, num_workers: int) -> tuple[str | None, Path]:
    """Train one trial through Ray; returns why it failed, and its folder."""
    context = make_context(folder, num_workers)
    with cluster.connected():
        run_jobs(context, concurrency=1, interrupt=Interrupt(), total=1,
                 jobs=[Job(id="0000", recipe=RECIPE, seed=0)])
    return read_failure(context.folder / "0000"), context.folder / "0000"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("num_workers", "is_odd"), [(1, True), (2, False)])
def test_real_trials_train_whatever_all_launchers_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       num_workers: int, is_odd: bool) -> None:
    everything: dict[str, str] = {}
    for variables in LEFT_BEHIND.values():
        everything |= variables
    for name, value in (ODD if is_odd else everything | LEFT_BEHIND["torchrun"]).items():
        monkeypatch.setenv(name, value)
    reason, folder = train_in_ray(tmp_path, num_workers)
    assert reason is None
    record = TrialRecord.load(folder)
    assert (len(record.epochs), record.workers) == (RECIPE.training.epochs, num_workers)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_group_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOSSES_FORGIVEN", 0)  # each start takes as long as a training
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    reason, _ = train_in_ray(tmp_path, 2)
    assert reason is not None and "Unable to find address for: nowhere0" in reason
    assert reason.startswith("the worker group ended before its trial did: RuntimeError: ")


@pytest.mark.slow
@pytest.mark.timeout(570)
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"),
                    reason="no root, or no iproute2: DDP over two nodes was not checked")
def test_group_spans_two_nodes_whose_names_are_127_0_1_1() -> None:
    """Debian's and Ubuntu's /etc/hosts; here the nodes are namespaces of this machine."""
    program = ("import sys; from pathlib import Path; from test_search_trials_launchers import train_in_ray;"
               "print('reason:', train_in_ray(Path(sys.argv[1]), 2)[0])")
    with TemporaryDirectory(prefix="cz", dir="/tmp") as name:  # short: Ray makes sockets below it
        study = Path(name) / "study"
        study.mkdir()
        ran = subprocess.Popen(
            ["sh", str(TESTS / "two_nodes.sh"), name, str(Path(sys.executable).with_name("ray")), sys.executable, "-c",
             program, str(study)], env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, said = ran.communicate(timeout=500)
        finally:
            ran.terminate()  # it takes the nodes with it
            ran.wait(20)
        if "Operation not permitted" in said:
            pytest.skip(f"no namespaces here: DDP over two nodes was not checked ({said.strip()[-200:]})")
        assert "reason: None" in out, out + said
        assert TrialRecord.load(study / "trials" / "0000").workers == 2
