import numpy as np

from training import figures


def test_a_course_goes_on_where_the_stage_before_ends():
    def rows(*values):
        return [dict.fromkeys(("loss", "val_elbo", "val_log_likelihood", "val_kl"), value) for value in values]

    figure = figures.course([("first", 500_000, rows(1.0, 2.0)), ("second", 250_000, rows(5.0, 4.0))])
    *validated, loss = figure.axes
    for axis in validated:
        lines = {line.get_label(): line.get_xydata() for line in axis.lines}
        assert list(lines) == ["first", "second"]
        np.testing.assert_allclose(lines["first"], [(0.5, 1), (1.0, 2)])
        np.testing.assert_allclose(lines["second"], [(1.25, 5), (1.5, 4)])
    assert [line.get_label() for line in loss.lines] == ["second"]
