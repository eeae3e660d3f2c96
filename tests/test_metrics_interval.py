import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.metrics.estimates import Support, estimate, num_units, sample, units_of_mean
from snellen.metrics.interval import bootstrap, group_codes, percentile_interval, resamples, wilson


@pytest.mark.parametrize(
    ("successes", "n", "confidence"),
    [(0, 1, 0.95), (1, 1, 0.95), (0, 30, 0.95), (30, 30, 0.95), (146, 153, 0.95), (7, 13, 0.8), (999, 1000, 0.99)],
)
def test_wilson_agrees_with_scipy(successes: int, n: int, confidence: float) -> None:
    from scipy.stats import binomtest

    expected = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_stays_in_0_1(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    assert 0 <= low <= (successes / n if n else 0.5) <= high <= 1
    assert low < high


def test_wilson_of_more_images_is_narrower() -> None:
    widths = [high - low for low, high in (wilson(0.9 * n, n) for n in (10, 100, 1000, 10_000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_wilson_of_an_impossible_count_is_an_error(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(successes, n)


def test_resamples_draw_n_items_each_time_whatever_the_block() -> None:
    blocks = list(resamples(500_000, num_resamples=20, seed=3))
    assert len(blocks) > 1  # of 16 rows at least
    weights = np.concatenate(blocks)
    assert weights.shape == (20, 500_000)
    assert (weights.sum(axis=1) == 500_000).all()
    fewer = np.concatenate(list(resamples(500_000, num_resamples=3, seed=3)))
    np.testing.assert_array_equal(fewer, weights[:3])


def test_resamples_are_keyed_by_the_seed() -> None:
    first, again, other = (next(resamples(50, num_resamples=5, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_groups_are_drawn_whole() -> None:
    codes = group_codes(["a", "b", "a", None, "b", None])
    assert codes.tolist() == [0, 1, 0, 2, 1, 3]
    weights = next(resamples(6, groups=codes, num_resamples=200))
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3, 5]].sum(axis=1) == 4).all()  # as many groups as there are
    assert (weights[:, 3] != weights[:, 5]).any()


def test_percentile_interval_leaves_undefined_resamples_out() -> None:
    values = np.concatenate([np.arange(101.0), [np.nan] * 50])
    assert percentile_interval(values, 0.9) == pytest.approx((5, 95))
    assert all(np.isnan(percentile_interval(np.array([np.nan]))))


def test_bootstrap_of_a_mean_has_the_width_of_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(lambda weights: (weights * values).sum() / weights.sum(), 400)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


@pytest.mark.parametrize("grouped", [False, True])
def test_bootstrap_interval_of_a_mean_covers_the_truth_about_95_times_in_100(grouped: bool) -> None:
    rng = np.random.default_rng(7)
    groups = [str(i // 2) for i in range(80)] if grouped else None
    covered = 0
    for seed in range(150):
        values = np.repeat(rng.exponential(size=40), 2) if grouped else rng.exponential(size=80)

        def mean(weights: np.ndarray, values: np.ndarray = values) -> float:
            return float(weights @ values / weights.sum())

        low, high = bootstrap(mean, 80, groups=groups, num_resamples=200, seed=seed)
        covered += low <= 1 <= high
    assert 0.87 <= covered / 150 <= 0.99


def test_images_of_one_group_make_the_interval_wider() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=30), 10)
    groups = [str(i // 10) for i in range(300)]

    def mean(weights: np.ndarray) -> float:
        return float(weights @ values / weights.sum())

    low, high = bootstrap(mean, 300)
    low_grouped, high_grouped = bootstrap(mean, 300, groups=groups)
    assert high_grouped - low_grouped > 2 * (high - low)


def test_bootstrap_refuses_what_it_cannot_resample() -> None:
    with pytest.raises(ValueError, match="nothing to resample"):
        bootstrap(lambda weights: 0.0, 0)
    with pytest.raises(ValueError, match="each of the 3 items, got 2"):
        bootstrap(lambda weights: 0.0, 3, groups=["a", "b"])


def test_a_share_gets_wilsons_interval() -> None:
    made = estimate(0.9, Support(150, 150, True), None, grouped=False)
    assert (made.low, made.high) == wilson(135, 150)
    assert made.method == "wilson"


def test_a_perfect_number_is_never_reported_as_certain() -> None:
    made = estimate(1.0, Support(150, 30, False), np.ones(1000), grouped=True)
    assert (made.low, made.high) == wilson(30, 30)
    assert made.method == "wilson (1 in every resample)"


def test_a_number_that_is_always_zero_is_not_reported_as_certain_either() -> None:
    made = estimate(0.0, Support(50, 12.5, False), np.zeros(1000), grouped=False)
    assert (made.low, made.high) == wilson(0, 12.5)
    assert made.method == "wilson (0 in every resample)"


def test_the_interval_always_holds_the_value() -> None:
    made = estimate(0.2, Support(9, 9, False), np.linspace(0.3, 0.4, 1000), grouped=False)
    assert made.low == 0.2
    assert made.high == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    ("units", "samples", "grouped", "method"),
    [
        (1, np.full(1000, 0.7), True, "none (fewer than two groups)"),
        (1, np.full(1000, 0.7), False, "none (fewer than two images)"),
        (50, None, False, "none (too many scores to resample)"),
        (50, np.linspace(0.6, 0.8, 1000), False, "bootstrap"),
        (50, np.linspace(0.6, 0.8, 1000), True, "bootstrap over groups"),
        (50, np.linspace(0.6, 0.8, 250), True, "bootstrap over groups, 250 resamples"),
    ],
)
def test_the_method_says_how_the_interval_was_made(
    units: int, samples: np.ndarray | None, grouped: bool, method: str
) -> None:
    made = estimate(0.7, Support(80, units, False), samples, grouped=grouped)
    assert made.method == method
    assert (made.low is None) == method.startswith("none")


def test_units_are_images_or_groups_and_the_rarest_class_decides_a_mean() -> None:
    images = np.array([True, True, False, True])
    assert num_units(images, None) == 3
    assert num_units(images, np.array([0, 0, 1, 2])) == 2
    assert units_of_mean([20, 20, 20]) == pytest.approx(60)
    assert units_of_mean([147, 3]) < 12
    assert units_of_mean([]) == 0


@pytest.mark.parametrize(
    ("n", "num_scores", "num_decided", "num_ranked"),
    [(100, 1000, 1000, 1000), (20, 2_000_000, 1000, 500), (20, 6_000_000, 1000, None), (400_000, 1, 500, 500)],
)
def test_resampling_is_bounded_by_the_size_of_the_data(
    n: int, num_scores: int, num_decided: int, num_ranked: int | None
) -> None:
    def ones(name: str, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.ones(len(weights))}

    sampled = sample(
        lambda weights: ones("decided", weights),
        lambda weights: ones("ranked", weights),
        n,
        num_scores,
        groups=np.zeros(n, dtype=np.intp),  # one group: cheap to draw
        seed=0,
    )
    assert sampled["decided"].size == num_decided
    assert (sampled["ranked"].size if "ranked" in sampled else None) == num_ranked
