"""One exception tree, and messages that suggest what was meant."""

import pytest

from bottega import errors


@pytest.mark.parametrize("name", ["ConfigError", "InputError", "CheckpointError", "DataError"])
def test_what_a_user_can_cause_is_a_value_error_and_a_bottega_error(name):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.BottegaError)
    assert issubclass(kind, ValueError)


def test_a_run_that_cannot_go_on_is_a_runtime_error():
    assert issubclass(errors.TrainingError, errors.BottegaError)
    assert issubclass(errors.TrainingError, RuntimeError)


def test_a_near_miss_is_suggested_and_a_far_one_lists_the_choices():
    samplers = ["heun", "euler", "ddim"]
    assert errors.nearest("huen", samplers) == "; did you mean heun?"
    assert errors.nearest("xyz", samplers) == "; choose from: ddim, euler, heun"
    assert errors.nearest("xyz", []) == "; choose from: "
