"""What `whyprune prune` is told reaches `prune`: the parts of a method, a training before and a recovery after."""

import pytest
from command_line import refused, run

from whyprune.cli import prune as command
from whyprune.recovery import Recovery


@pytest.fixture
def asked(prune, here, monkeypatch):
    """What would be pruned with these options, instead of pruning."""

    def with_flags(*flags):
        found = {}
        monkeypatch.setattr(command, "prune_to_folder", lambda setup, _, **how: found.update(how, setup=setup))
        result = run(*prune, *flags, "--out", "out")
        assert result.code == 0, result.err
        return found

    return with_flags


def test_parts_of_the_method_are_replaced(asked):
    flags = ("--scorer", "exact", "--schedule", "cubic:3", "--allocation", "greedy", "--heads", "width", "--views", "2")
    settings = asked(*flags, "--effect-passes", "10", "--effect-images", "8")["settings"]
    assert (settings.scorer, settings.schedule, settings.allocation) == ("exact", "cubic:3", "greedy")
    assert (settings.heads, settings.views, settings.effect_passes, settings.effect_images) == ("width", 2, 10, 8)
    assert asked()["settings"].scorer is None
    assert asked("--schedule", "linear:3", "--recover-between", "2")["settings"].recover_between == 2


def test_the_causal_variant_is_one_flag_away(asked):
    assert asked("--method", "taylor", "--causal")["settings"].causal
    assert not asked()["settings"].causal


def test_where_there_is_no_causal_variant_one_line_lists_those_that_have_one(prune, here):
    message = refused(*prune, "--causal", "--out", "out")
    assert "method 'magnitude-l2' has no causal variant: leave causal out, or choose from" in message
    assert "taylor" in message


def test_training_before_and_recovery_after_are_configured_apart(asked):
    before = ("--training-epochs", "3", "--training-penalty", "bn-l1", "--training-penalty-weight", "0.1")
    found = asked(*before, "--training-learning-rate", "0.5")
    assert found["training"] == Recovery(epochs=3, penalty="bn-l1", penalty_weight=0.1, learning_rate=0.5)
    assert found["recovery"] is None
    after = ("--finetune-epochs", "2", "--penalty", "group-lasso", "--penalty-weight", "0.2", "--ema", "0.9")
    found = asked(*after, "--clip-grad-norm", "1", "--momentum", "0.5", "--strategy", "ddp")
    assert found["training"] is None
    assert found["recovery"] == Recovery(
        epochs=2, penalty="group-lasso", penalty_weight=0.2, ema=0.9, clip_grad_norm=1, momentum=0.5, strategy="ddp"
    )


def test_both_share_what_runs_them(asked):
    shared = ("--batch-size", "32", "--accelerator", "cpu", "--precision", "bf16-mixed")
    found = asked("--training-epochs", "1", *shared)
    assert found["training"] == Recovery(epochs=1, batch_size=32, accelerator="cpu", precision="bf16-mixed")
    assert len(next(iter(found["setup"].training))[0]) == 32
    found = asked("--training-epochs", "1", "--finetune-epochs", "2", "--learning-rate", "0.5", *shared)
    assert found["training"].learning_rate == Recovery().learning_rate
    assert found["recovery"].learning_rate == 0.5
