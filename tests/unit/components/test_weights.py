import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from components.errors import WeightsError
from components.weights import fetch_weights, load_weights, read_tensors, save_weights
from components.weights_file import WeightsFile
from tests.support.s3_rig import aws_environment, moto_server


def model(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state: dict[str, tuple[str, torch.Tensor | None]] = {
        name.replace(".", "_"): (name, tensor) for name, tensor in model().state_dict().items()
    }
    state |= {name: (name.replace("_", ".", 1), tensor) for name, tensor in changes.items()}
    return {name: tensor for name, tensor in state.values() if tensor is not None}


def test_saved_and_loaded_is_equal(tmp_path: Path) -> None:
    one, two = model(), model()
    save_weights(tmp_path / "w.safetensors", one.state_dict())
    load_weights(two, tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_bytes_depend_on_the_tensors_alone(tmp_path: Path) -> None:
    state = model().state_dict()
    state["0.weight"] = state["0.weight"].t().contiguous().t()  # another layout, and another order
    save_weights(tmp_path / "a", state)
    save_weights(tmp_path / "b", {name: state[name].contiguous() for name in reversed(list(state))})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shared_tensors_are_written_apart(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    save_weights(tmp_path / "w.safetensors", {"a": weight, "b": weight, "c": weight[:2]})
    assert read_tensors(tmp_path / "w.safetensors")["c"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"0_weight": None}, "missing: 0.weight"),
        ({"2_extra": torch.ones(1)}, "not in the model: 2.extra"),
        ({"0_bias": torch.ones(4)}, r"wrong shape: 0.bias \(4,\) for \(3,\)"),
        ({"0_bias": torch.ones(3).half()}, "wrong dtype: 0.bias torch.float16 for torch.float32"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], named: str
) -> None:
    save_weights(tmp_path / "w.safetensors", changed(**changes))
    target = model()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(WeightsError, match=named):
        load_weights(target, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_tensors(tmp_path / "w.safetensors")


def test_wrong_digest_is_refused_before_parsing(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"anything")
    with pytest.raises(WeightsError, match="sha256 " + "0" * 64):
        read_tensors(tmp_path / "w.pt", "0" * 64)
    with pytest.raises(WeightsError, match=r"not a whole torch file|more than tensors"):
        read_tensors(tmp_path / "w.pt", "EE0874170B7F6F32B8C2AC9573C428D35B575270A66B757C2C0185D2BD09718D")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(model().state_dict(), path)
    else:
        save_weights(path, model().state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(WeightsError, match="not a whole"):
        read_tensors(path)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_payload_is_refused_unrun(tmp_path: Path, write: Callable[[object, Path], object]) -> None:
    write({"state_dict": Payload()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="run code"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
def test_torch_files_as_training_scripts_write_them(tmp_path: Path, wrap: Callable[[object], object]) -> None:
    state = model().state_dict()
    torch.save(wrap(state), tmp_path / "w.pt")
    assert read_tensors(tmp_path / "w.pt").keys() == state.keys()


def test_a_file_without_weights_names_its_entries(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "net": {"w": torch.ones(1)}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="epoch, net"):
        read_tensors(tmp_path / "w.pt")


def test_weights_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    save_weights(tmp_path / "w.safetensors", model().state_dict())
    data = (tmp_path / "w.safetensors").read_bytes()
    with moto_server("models") as endpoint:
        for name, value in aws_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        boto3.session.Session().client("s3").put_object(Bucket="models", Key="a/b/w.safetensors", Body=data)
        pin = WeightsFile(uri="s3://models/a/b/w.safetensors", sha256=hashlib.sha256(data).hexdigest())
        tensors = fetch_weights(pin, "the model", "rdm.weights")
        absent = pin.model_copy(update={"uri": "s3://models/a/b/v.safetensors"})
        with pytest.raises(WeightsError, match=r"does not exist(.|\n)*s3://models/a/b/v.safetensors"):
            fetch_weights(absent, "the model", "rdm.weights")
    assert tensors.keys() == model().state_dict().keys()
    assert float(tensors["0.weight"].abs().sum()) > 0


def test_numbers_of_numpy_beside_the_weights_are_data(tmp_path: Path) -> None:
    """A best score as np.float64, options as an array: what training scripts save."""
    kept = {"model": model().state_dict(), "best": np.float64(0.7), "n": np.int64(3), "curve": np.arange(3.0)}
    kept |= {"ok": np.bool_(True), "f": np.float32(1), "half": np.float16(1), "byte": np.uint8(255)}
    kept["rng"] = np.random.get_state()
    torch.save(kept, tmp_path / "w.pt")
    assert read_tensors(tmp_path / "w.pt").keys() == model().state_dict().keys()
