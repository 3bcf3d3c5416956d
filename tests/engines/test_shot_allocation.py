import pytest
import torch
from art_fixtures import images, network, plain
from torch import nn

from qnad_art import QNAD, QuantumExecutedClassifier, convert
from qnad_art.engines.shot_allocation import allocate_shots
from qnad_art.errors import CalibrationError, InvalidInputError


@pytest.fixture
def data():
    return torch.tensor(images("digits", "train").x[:200])


@pytest.fixture
def module(data):
    return convert(network(), data, device="ibm_nairobi", shots=256, seed=0)


def shots_an_image(module, data) -> float:
    total = 0.0
    for name, products in module.products(data).items():
        layer = module.layers[name]
        share = layer.shot_share or (1.0,) * len(layer.weight)
        total += products * sum(share) / len(share)
    return total


def margin_deviation(module, data, draws: int = 40) -> float:
    """Root mean square over images of the margin's standard deviation over noise draws."""
    with torch.no_grad():
        logits = torch.stack([module(data[:50]) for _ in range(draws)])
    top = logits.mean(0).topk(2).indices.expand(draws, -1, -1)
    first, second = logits.gather(2, top).unbind(2)
    return float((first - second).var(0).mean().sqrt())


def test_the_total_stays_and_the_decision_gets_less_noisy(module, data):
    before, noisy = shots_an_image(module, data), margin_deviation(module, data)
    allocate_shots(module, data)
    assert shots_an_image(module, data) == pytest.approx(before, rel=1e-5)
    assert margin_deviation(module, data) < 0.92 * noisy


def test_outputs_that_a_relu_keeps_off_stay_off(data):
    """They move no decision, and so got no shots; with none, noise switched them on."""
    net = network()
    first = net.classifier[1]
    with torch.no_grad():
        first.weight[::2] = 0
        first.bias[::2] = -0.2
    module = convert(net, data, device="ibm_nairobi", shots=4096, seed=0)
    noisy = margin_deviation(module, data)
    allocate_shots(module, data)
    assert margin_deviation(module, data) < noisy


def test_the_expectation_is_not_touched(module, data):
    module.shots = None
    before = module(data)
    module.shots = 256
    allocate_shots(module, data)
    module.shots = None
    assert torch.equal(module(data), before)


def test_noise_is_that_of_the_allocated_shots(data):
    """An output with four times the shots has half the deviation."""
    module = convert(nn.Linear(6, 2), torch.rand(50, 6), device="ibm_nairobi", shots=100, seed=0)
    x = torch.rand(1, 6).expand(20_000, 6)
    with torch.no_grad():
        before = module(x).std(0)
        module.network.shot_share = (4.0, 0.25)
        after = module(x).std(0)
    torch.testing.assert_close(after, before * torch.tensor([0.5, 2.0]), rtol=0.05, atol=0)


def test_weight_gradients_know_the_allocation(module, data):
    allocate_shots(module, data)
    layer = next(iter(module.layers.values()))
    with module.frozen_draw():
        (given,) = torch.autograd.grad(module(data[:4]).square().sum(), layer.weight)
        direction = torch.sign(given)
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                layer.weight += step * direction
                values.append(float(module(data[:4]).double().square().sum()))
                layer.weight -= step * direction
    slope = (values[0] - values[1]) / 2e-3
    assert slope == pytest.approx(float((given * direction).sum()), rel=0.05)


def test_modules_without_shots_or_with_in_place_layers(data):
    module = convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(True), nn.Linear(8, 3)))
    module.calibrate(torch.rand(20, 1, 8, 8))
    with pytest.raises(CalibrationError, match="set shots"):
        allocate_shots(module, torch.rand(20, 1, 8, 8))
    module.shots = 64
    module.requires_grad_(False)
    allocate_shots(module, torch.rand(20, 1, 8, 8))
    assert all(len(layer.shot_share) == len(layer.weight) for layer in module.layers.values())


def test_the_defence_allocates_and_the_file_remembers(tmp_path):
    train = images("digits", "train")
    classifier = plain()
    for allocation in ("margin", "equal"):
        defence = QNAD(classifier, shots=128, seed=0, fraction=0.1, allocation=allocation)
        defence.fit(train.x[:100], train.y[:100])
        hardened = defence(train.x, classifier)
        shares = [layer.shot_share for layer in hardened.module.layers.values()]
        assert all((share is None) == (allocation == "equal") for share in shares)
        hardened.save(str(tmp_path / allocation))
        loaded = QuantumExecutedClassifier.load(tmp_path / allocation)
        assert [layer.shot_share for layer in loaded.module.layers.values()] == shares
    with pytest.raises(InvalidInputError, match="margin, equal"):
        QNAD(classifier, allocation="fair")


class Frames(nn.Module):
    """Takes the frames of a film one by one, as images of a larger batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(2 * 4 * 36, 3)

    def forward(self, x):
        frames = x.reshape(-1, 1, 8, 8)
        return self.head(torch.relu(self.conv(frames)).reshape(len(x), -1))


def test_a_layer_that_runs_several_times_an_image_is_paid_for_as_often():
    films = torch.rand((16, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    module = convert(Frames().eval(), films, shots=1000, seed=0)
    assert module.products(films) == {"conv": 4 * 2 * 9 * 36, "head": 3 * 288}
    before = shots_an_image(module, films)
    allocate_shots(module, films)
    assert shots_an_image(module, films) == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("images_", [torch.empty(0, 1, 8, 8), torch.full((2, 1, 8, 8), torch.nan)])
def test_shares_stay_where_there_are_no_others(module, data, images_):
    allocate_shots(module, data)
    before = [layer.shot_share for layer in module.layers.values()]
    with pytest.raises(InvalidInputError):
        allocate_shots(module, images_)
    assert [layer.shot_share for layer in module.layers.values()] == before
    assert None not in before
