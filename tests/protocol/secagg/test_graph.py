"""The graph: thresholds of the paper, a ring that is symmetric and connected, probabilities checked against SciPy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.secagg import graph


@pytest.mark.parametrize(("sites", "colluding", "threshold"), [(3, 0, 2), (10, 3, 7), (64, 20, 43), (4, 0, 3)])
def test_thresholds_of_the_complete_graph(sites: int, colluding: int, threshold: int) -> None:
    found = graph.size_for(sites, colluding=colluding)
    assert (found.neighbours, found.threshold, found.confirm) == (sites - 1, threshold, False)
    assert 2 * threshold > sites + colluding


@pytest.mark.parametrize(
    ("sites", "expected"), [(300, (40, 22)), (1000, (50, 27)), (10_000, (60, 32)), (100_000, (64, 34))]
)
def test_sizes_of_the_sparse_graph(sites: int, expected: tuple[int, int]) -> None:
    """Both bounds hold, and no smaller even k has a t for which they do.

    The rule: n · P[corrupt neighbours > x] < 2^-40 gives t = x + 1; then n · P[live neighbours < t] < 2^-30. A table
    that says (42, 22) at 300 and (52, 28) at 1,000 takes 0.9 n − 1 sites for alive: right for the neighbours of a site
    that is alive itself, but that one holds a share of its own b, and needs only t − 1 of them.
    """
    k, t = graph.sparse(sites, corrupt=0.1, dropped=0.1)
    assert (k, t) == expected
    assert meets(sites, k, t)
    assert sites * hypergeom(sites - 1, round(0.1 * sites), k).sf(t - 2) >= 2.0**-40  # t − 1 would be too few
    assert not any(meets(sites, k - 2, smaller) for smaller in range(1, k))


def meets(sites: int, k: int, t: int) -> bool:
    """Whether nobody's corrupt neighbours reach t, and everybody's live ones do, but for 2^-40 and 2^-30."""
    enemies = hypergeom(sites - 1, round(0.1 * sites), k)
    of_dropped = hypergeom(sites - 1, int(0.9 * sites), k)
    of_alive = hypergeom(sites - 1, int(0.9 * sites) - 1, k)
    lost = max(of_dropped.cdf(t - 1), of_alive.cdf(t - 2))
    return bool(sites * enemies.sf(t - 1) < 2.0**-40 and sites * lost < 2.0**-30)


@pytest.mark.parametrize("sites", [101, 300, 1000])
@pytest.mark.parametrize("corrupt", [0.05, 0.1])
@pytest.mark.parametrize("dropped", [0.05, 0.1, 0.2])
def test_a_graph_whose_numbers_somebody_made_up(sites: int, corrupt: float, dropped: float) -> None:
    """A server that declares as few corrupt and lost sites as it may gets no threshold of 1, no ring of two."""
    k, t = graph.sparse(sites, corrupt=corrupt, dropped=dropped)
    assert k // 2 < t <= k
    assert k >= 12
    assert t >= 7


def test_a_ring_falls_apart_where_half_its_neighbours_are_gone_twice() -> None:
    """Ten sites, k = 4: without two in a row at two places the rest is in two parts; fewer gone leave it whole."""
    order = [bytes([number]) * 16 for number in range(10)]
    near = graph.neighbours(order, 4)
    for gone, parts in (({0, 1, 5, 6}, 2), ({0, 1, 5}, 1), ({0, 2, 5, 7}, 1)):
        left = {site for number, site in enumerate(order) if number not in gone}
        found = 0
        while left:
            found, reached = found + 1, {left.pop()}
            while reached:
                reached = {other for one in reached for other in near[one] if other in left}
                left -= reached
        assert found == parts
    assert graph._all_among(2, 3, 10) == pytest.approx(3 / 10 * 2 / 9)
    assert graph._all_among(4, 3, 10) == 0.0


@given(st.integers(3, 40), st.integers(1, 19))
def test_neighbours_are_mutual(sites: int, half: int) -> None:
    order = graph.ring(b"session", [bytes([number]) * 16 for number in range(sites)])
    near = graph.neighbours(order, 2 * half)
    for site, others in near.items():
        assert site not in others
        assert len(set(others)) == len(others) == min(2 * half, sites - 1)
        assert all(site in near[other] for other in others)
        assert list(others) == sorted(others)


def test_the_order_of_the_ring_depends_on_the_session() -> None:
    sites = [bytes([number]) * 16 for number in range(20)]
    assert graph.ring(b"one", sites) != graph.ring(b"two", sites)
    assert graph.ring(b"one", sites) == graph.ring(b"one", sites[::-1])


@pytest.mark.parametrize(("sites", "colluding"), [(1, 0), (3, 3), (5, 5), (3, -1)])
def test_a_threshold_nobody_can_meet_is_refused(sites: int, colluding: int) -> None:
    with pytest.raises(ConfigError, match="colluding"):
        graph.complete_threshold(sites, colluding)


def test_a_cohort_without_honest_majority_is_refused() -> None:
    with pytest.raises(ConfigError, match="collude"):
        graph.sparse(300, corrupt=0.5, dropped=0.4)
