import numpy as np

from training import figures

PANELS = ("val_elbo", "val_log_likelihood", "val_kl", "loss")


def test_a_course_goes_on_where_the_stage_before_ends():
    def rows(*values):
        return [{name: 10 * panel + value for panel, name in enumerate(PANELS)} for value in values]

    figure = figures.course([("first", 500_000, rows(1.0, 2.0)), ("second", 250_000, rows(5.0, 4.0))])
    for panel, axis in enumerate(figure.axes[:-1]):
        lines = {line.get_label(): line.get_xydata() for line in axis.lines}
        assert list(lines) == ["first", "second"]
        np.testing.assert_allclose(lines["first"], [(0.5, 10 * panel + 1), (1.0, 10 * panel + 2)])
        np.testing.assert_allclose(lines["second"], [(1.25, 10 * panel + 5), (1.5, 10 * panel + 4)])
    (loss,) = figure.axes[-1].lines
    np.testing.assert_allclose(loss.get_xydata(), [(1.25, 35), (1.5, 34)])
