"""The model's life on the cluster: a CronJob retrains when pictures came, is killed, goes on; noise is refused."""

import pytest

from tests.cluster.retraining import N_NEW, Retrained

pytestmark = pytest.mark.timeout(1800)


def test_the_pipelines_model_becomes_the_first_champion(retrained: Retrained) -> None:
    assert retrained.first.aliases["champion"] == 1


def test_the_cronjob_fires_its_pod_is_killed_and_the_next_one_goes_on(retrained: Retrained) -> None:
    first, grown = retrained.first, retrained.grown
    assert grown.journal["end"] == "promoted"
    assert grown.journal["n_new"] == N_NEW
    assert (grown.aliases["champion"], grown.aliases["previous-champion"]) == (2, 1)
    ran = ["collect", "encode", "evaluate", "pixels", "rdm", "sample"]
    assert grown.stages == sorted([*first.stages, *ran]), "each once; encoder and codec were not touched"
    assert retrained.n_encoded == N_NEW, "only the new images were encoded"
    assert retrained.n_commits == 2, "inputs and results"
    assert grown.main == retrained.branch


def test_who_retrains_at_the_same_time_is_told_who_works(retrained: Retrained) -> None:
    assert "a retraining is under way already" in retrained.who_works
    assert retrained.pod in retrained.who_works, "who holds the lease"


def test_noise_is_refused_and_the_champion_stays(retrained: Retrained) -> None:
    grown, noisy = retrained.grown, retrained.noisy
    assert noisy.journal["end"] == "refused"
    assert noisy.journal["key"] != grown.journal["key"]
    assert noisy.stages == grown.stages, "no RayJobs: it ran in the pod itself"
    assert noisy.aliases["champion"] == 2
    assert noisy.main == grown.main


def test_rollback_from_outside(retrained: Retrained) -> None:
    assert "version 1 again" in retrained.rollback
    assert retrained.rolled_back.aliases["champion"] == 1
