"""Training: it learns, repeats itself, resumes bit for bit, and refuses what is not its run."""

import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
import typer
from small_runs import TRAINING as FAST
from small_runs import Interrupted, blobs, interrupt_training, lenet, stop_after
from typer.testing import CliRunner

from qnad_art.cli.train import train as train_command
from qnad_art.datasets.dataset import load_dataset
from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.models.architectures import build_model
from qnad_art.models.weights import load_model, read_card
from qnad_art.training.standard import TrainSettings, evaluate_accuracy, train


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


class TestTrain:
    def test_lenet5_learns_digits(self):
        data, test = load_dataset("digits", "train"), load_dataset("digits")
        model = build_model("lenet5", image_size=8)
        settings = TrainSettings(epochs=6, learning_rate=0.05, batch_size=32, device="cpu")
        results = []
        result = train(model, data, settings, validation=test, on_epoch=results.append)
        assert result.history == tuple(results)
        assert [epoch.epoch for epoch in results] == [1, 2, 3, 4, 5, 6]
        assert results[-1].loss < results[0].loss / 5
        assert results[-1].validation_accuracy == evaluate_accuracy(model, test) > 0.9
        assert not model.training

    def test_the_seed_decides_everything_and_nothing_global_changes(self):
        runs = []
        settings = replace(FAST, augment=True)
        for seed in (1, 1, 2):
            model, state = lenet(), torch.get_rng_state()
            train(model, blobs(), replace(settings, seed=seed))
            assert torch.equal(torch.get_rng_state(), state)
            torch.rand(3)
            runs.append(weights(model))
        assert same(runs[0], runs[1])
        assert not same(runs[0], runs[2])

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(self, tmp_path, momentum):
        path = tmp_path / "run.checkpoint"
        settings = replace(FAST, augment=True, momentum=momentum)
        whole = lenet()
        expected = train(whole, blobs(), settings, validation=blobs(seed=1))
        with pytest.raises(Interrupted):
            train(
                lenet(),
                blobs(),
                settings,
                validation=blobs(seed=1),
                checkpoint=path,
                on_epoch=stop_after(2),
            )
        resumed = lenet(seed=99)
        result = train(
            resumed, blobs(), settings, validation=blobs(seed=1), checkpoint=path, resume=True
        )
        assert same(weights(resumed), weights(whole))
        assert result.history == expected.history

    def test_resuming_restores_dropout_and_batch_normalisation_too(self, tmp_path):
        path = tmp_path / "run.checkpoint"
        settings = replace(FAST, epochs=2, batch_size=8, learning_rate=0.01)
        data = blobs(16)
        whole, stopped = (build_model("vgg16_bn", num_classes=2) for _ in range(2))
        resumed = build_model("vgg16_bn", num_classes=2, seed=9)
        train(whole, data, settings)
        with pytest.raises(Interrupted):
            train(stopped, data, settings, checkpoint=path, on_epoch=stop_after(1))
        torch.manual_seed(7)
        train(resumed, data, settings, checkpoint=path, resume=True)
        assert same(weights(resumed), weights(whole))

    def test_a_finished_run_resumes_to_its_result(self, tmp_path):
        path = tmp_path / "run.checkpoint"
        first, again = lenet(), lenet(seed=5)
        done = train(first, blobs(), FAST, checkpoint=path)
        assert train(again, blobs(), FAST, checkpoint=path, resume=True).history == done.history
        assert same(weights(first), weights(again))

    def test_bfloat16_keeps_float32_weights_and_learns(self):
        model = lenet()
        settings = replace(FAST, precision="bfloat16", epochs=8)
        history = train(model, blobs(), settings).history
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert history[-1].loss < history[0].loss
        plain = lenet()
        train(plain, blobs(), replace(settings, precision="float32"))
        assert not same(weights(plain), weights(model))

    def test_a_last_batch_of_one_image_does_not_break_batch_normalisation(self):
        model = build_model("resnet18", num_classes=2, image_size=32)
        history = train(model, blobs(5), replace(FAST, epochs=1, batch_size=4)).history
        assert np.isfinite(history[0].loss)

    def test_a_diverging_loss_is_reported_with_advice(self):
        with pytest.raises(InvalidInputError, match=r"epoch \d; lower the learning rate of 100000"):
            train(lenet(), blobs(), replace(FAST, learning_rate=1e5))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"learning_rate": 0.01}, r"learning_rate is 0\.05 there and 0\.01 here"),
            ({"epochs": 4, "seed": 2}, r"epochs is 3 there and 4 here; seed is 0 there and 2 here"),
        ],
    )
    def test_a_checkpoint_of_other_settings(self, tmp_path, changes, message):
        path = tmp_path / "run.checkpoint"
        interrupt_training(path)
        with pytest.raises(ArtifactError, match=message):
            train(lenet(), blobs(), replace(FAST, **changes), checkpoint=path, resume=True)

    def test_a_checkpoint_of_another_network_or_other_data(self, tmp_path):
        path = tmp_path / "run.checkpoint"
        interrupt_training(path)
        other = build_model("alexnet", num_classes=2)
        with pytest.raises(ArtifactError, match="name is 'lenet5' there and 'alexnet' here"):
            train(other, blobs(), FAST, checkpoint=path, resume=True)
        with pytest.raises(ArtifactError, match="data checksum"):
            train(lenet(), blobs(seed=1), FAST, checkpoint=path, resume=True)

    def test_a_checkpoint_that_is_missing_cut_short_or_something_else(self, tmp_path):
        path = tmp_path / "run.checkpoint"
        with pytest.raises(ArtifactError, match="does not exist"):
            train(lenet(), blobs(), FAST, checkpoint=path, resume=True)
        safetensors.torch.save_file(lenet().state_dict(), path)
        with pytest.raises(ArtifactError, match="not a training checkpoint"):
            train(lenet(), blobs(), FAST, checkpoint=path, resume=True)
        interrupt_training(path)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ArtifactError, match="not an intact"):
            train(lenet(), blobs(), FAST, checkpoint=path, resume=True)

    def test_a_checkpoint_is_not_taken_for_weights(self, tmp_path):
        path = tmp_path / "run.checkpoint"
        interrupt_training(path)
        with pytest.raises(ArtifactError, match="checkpoint"):
            load_model(path)

    def test_resuming_from_nothing(self):
        with pytest.raises(InvalidInputError, match="needs a checkpoint"):
            train(lenet(), blobs(), FAST, resume=True)

    @pytest.mark.parametrize("data", [blobs(channels=1), blobs(size=28), blobs().subset([])])
    def test_data_that_do_not_fit_the_network(self, data):
        with pytest.raises(InvalidInputError, match="do not fit"):
            train(lenet(), data, FAST)
        with pytest.raises(InvalidInputError, match="do not fit"):
            train(lenet(), blobs(), FAST, validation=data)

    @pytest.mark.parametrize(
        "changes",
        [
            {"epochs": 0},
            {"batch_size": 2.5},
            {"seed": -1},
            {"learning_rate": 0.0},
            {"learning_rate": float("nan")},
            {"momentum": 1.0},
            {"weight_decay": -1e-4},
        ],
    )
    def test_settings_out_of_range(self, changes):
        with pytest.raises(InvalidInputError, match=next(iter(changes))):
            replace(FAST, **changes)

    def test_unknown_names(self):
        with pytest.raises(UnknownNameError, match="bfloat16, float32"):
            replace(FAST, precision="float16")
        with pytest.raises(UnknownNameError, match="auto, cpu, cuda"):
            replace(FAST, device="tpu")
        with pytest.raises(UnknownNameError, match="lenet5"):
            TrainSettings.for_model("lenet")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_cuda_without_a_gpu(self):
        with pytest.raises(InvalidInputError, match="no usable GPU"):
            train(lenet(), blobs(), replace(FAST, device="cuda"))


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg16_bn", "resnet18"])
def test_every_model_has_settings_to_start_from(name):
    assert TrainSettings.for_model(name, seed=3).seed == 3


class TestAccuracy:
    def test_it_counts_right_answers_and_restores_the_mode(self):
        model, data = lenet(), blobs(20)
        with torch.no_grad():
            predicted = model(torch.from_numpy(data.x)).argmax(1).numpy()
        right = replace(data, y=np.where(np.arange(20) < 15, predicted, 1 - predicted))
        model.train()
        assert evaluate_accuracy(model, right, batch_size=7) == 0.75
        assert model.training

    def test_no_images(self):
        with pytest.raises(InvalidInputError, match="needs images"):
            evaluate_accuracy(lenet(), blobs().subset([]))


class TestCommand:
    def run(self, *arguments):
        app = typer.Typer()
        app.command()(train_command)
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def test_it_trains_reports_and_writes_weights_with_a_card(self, tmp_path):
        path = tmp_path / "digits.safetensors"
        run = self.run(
            *("lenet5", "--data", "digits", "--epochs", 4, "--batch-size", 32, "--device", "cpu"),
            *("--output", path),
        )
        assert run.exit_code == 0, run.output
        assert "shipped with scikit-learn" in run.output
        assert re.search(r"^epoch 4/4  loss \d\.\d+  validation accuracy \d", run.output, re.M)
        shown = re.search(r"Test accuracy (\S+)% \(95 % interval (\S+)% to (\S+)%", run.output)
        accuracy, low, high = map(float, shown.groups())
        assert low < accuracy < high
        assert evaluate_accuracy(load_model(path), load_dataset("digits")) == pytest.approx(
            accuracy / 100, abs=1e-4
        )
        assert read_card(path)["settings"]["epochs"] == 4
        assert [file.name for file in tmp_path.iterdir()] == ["digits.safetensors"]

    def test_ctrl_c_keeps_the_last_epoch_and_resume_finishes(self, tmp_path, monkeypatch):
        path = tmp_path / "w.safetensors"
        arguments = (
            *("lenet5", "--data", "digits", "--epochs", 3, "--limit", 200, "--device", "cpu"),
            *("--validation-fraction", 0, "--output", path),
        )
        assert self.run(*arguments).exit_code == 0
        expected = weights(load_model(path))
        path.unlink()

        def press_ctrl_c(result):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("qnad_art.cli.train._epoch_line", press_ctrl_c)
            stopped = self.run(*arguments)
        assert stopped.exit_code == 130
        assert "--resume" in stopped.output
        resumed = self.run(*arguments, "--resume")
        assert "epoch 2/3" in resumed.output
        assert "epoch 1/3" not in resumed.output
        assert same(weights(load_model(path)), expected)

    def test_errors_reach_the_caller_as_they_are(self, tmp_path):
        run = self.run("lenet5", "--data", "mnist", "--data-dir", tmp_path)
        assert "--download" in str(run.exception)
        assert isinstance(self.run("lenet", "--data", "digits").exception, UnknownNameError)
