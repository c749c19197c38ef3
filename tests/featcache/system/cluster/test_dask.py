import logging

import pytest

from featcache.errors import CallError, ClusterError
from featcache.system.cluster import dask
from featcache.system.cluster.dask import connected, local_workers, quiet, require_dask


def test_without_dask_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_dask()
    monkeypatch.setattr(dask, "find_spec", lambda name: None)
    with pytest.raises(CallError, match=r"pip install 'scivid\[dask\]'"):
        require_dask()


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert dask._gpus() == ["0", "3"]
    with (
        pytest.raises(CallError, match="--local-workers 3: there are 2 GPUs here"),
        local_workers(3, on_gpu=True),
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "SCHEDULER_WITHIN", 0.5)
    with quiet(), pytest.raises(ClusterError, match="no Dask scheduler answers at tcp"):
        connected("tcp://127.0.0.1:1")
    with quiet(), pytest.raises(CallError, match="write for example tcp://"):
        connected("nonsense://x")


def test_what_dask_logs_is_not_heard_meanwhile() -> None:
    logger = logging.getLogger("distributed.client")
    with quiet():
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.isEnabledFor(logging.CRITICAL)
