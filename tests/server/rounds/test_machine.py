"""The round machine: every rule once by hand, then every sequence of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import RefusalCode
from fedsite.server.rounds.machine import (
    Ask,
    Close,
    Count,
    Discard,
    Ignored,
    Lost,
    Reply,
    RoundState,
    Rules,
    Status,
    Stop,
    Tick,
    open_round,
    step,
)

RULES = Rules(minimum=2, goal=2, over_select=1.5, deadline_s=10.0)


def opened(rules: Rules = RULES, sites: str = "abcd") -> RoundState:
    return open_round(rules, number=3, attempt=1, candidates=list(sites), at=100.0)[0]


def reply(site: str, at: float = 101.0, status: Status = Status.OK, number: int = 3, attempt: int = 1) -> Reply:
    return Reply(site=site, round=number, attempt=attempt, at=at, status=status)


def play(state: RoundState, *events: object) -> tuple[RoundState, list[object]]:
    effects: list[object] = []
    for event in events:
        state, more = step(state, event)  # type: ignore[arg-type]
        effects += more
    return state, effects


def test_opening_asks_the_goal_times_over_selection() -> None:
    state, effects = open_round(RULES, number=1, attempt=1, candidates=["a", "b", "c", "d"], at=0.0)
    assert effects == [Ask(sites=("a", "b", "c"))]
    assert state.outcome is None


def test_without_a_goal_every_candidate_is_asked_and_wanted() -> None:
    state = opened(Rules(minimum=2, deadline_s=10.0))
    assert state.goal == len(state.sites) == 4


def test_too_few_candidates_are_not_asked_at_all() -> None:
    state, effects = open_round(RULES, number=1, attempt=1, candidates=["a"], at=0.0)
    assert state.outcome == "abandoned"
    assert effects == [Close(outcome="abandoned", reason="1 of 1 sites can answer, minimum 2")]


def test_the_goal_completes_the_round_before_the_deadline() -> None:
    state, effects = play(opened(), reply("a"), reply("b"))
    assert state.outcome == "completed"
    assert effects[:2] == [Count(site="a"), Count(site="b")]
    assert state.sites["c"] is Status.SILENT


def test_the_minimum_without_the_goal_is_degraded_at_the_deadline() -> None:
    state, _ = play(opened(Rules(minimum=1, goal=3, deadline_s=10.0)), reply("a"), Tick(at=109.9))
    assert state.outcome is None
    state, _ = play(state, Tick(at=110.0))
    assert (state.outcome, state.reason) == ("degraded", "1 of 3 sites answered by the deadline of 10 s, goal 3")


def test_refusals_and_failures_abandon_as_soon_as_the_minimum_is_out_of_reach() -> None:
    refusal = Reply(site="a", round=3, attempt=1, at=101.0, status=Status.REFUSED, code=RefusalCode.BUDGET)
    state, _ = play(opened(), refusal, Lost(site="b", at=101.0))
    assert state.outcome == "abandoned"
    assert state.codes == {"a": RefusalCode.BUDGET}
    assert state.sites == {"a": Status.REFUSED, "b": Status.UNREACHABLE, "c": Status.SILENT}


def test_duplicate_late_unknown_and_wrong_attempt_are_only_counted() -> None:
    state, effects = play(
        opened(),
        reply("a"),
        reply("a"),
        reply("z"),
        reply("b", attempt=2),
        reply("b", number=2),
        reply("b", at=110.5),
    )
    assert effects == [
        Count(site="a"),
        Discard(site="a", why=Ignored.DUPLICATE),
        Discard(site="z", why=Ignored.UNKNOWN),
        Discard(site="b", why=Ignored.WRONG_ATTEMPT),
        Discard(site="b", why=Ignored.WRONG_ATTEMPT),
        Discard(site="b", why=Ignored.LATE),
        Close(outcome="abandoned", reason="1 of 3 sites answered by the deadline of 10 s, minimum 2"),
    ]
    assert state.ignored == {Ignored.DUPLICATE: 1, Ignored.UNKNOWN: 1, Ignored.WRONG_ATTEMPT: 2, Ignored.LATE: 1}


def test_stop_abandons() -> None:
    assert play(opened(), reply("a"), Stop(at=102.0))[0].reason == "the run was stopped"


def test_a_minimum_of_zero_never_abandons() -> None:
    state, _ = play(opened(Rules(minimum=0, deadline_s=10.0)), Tick(at=111.0))
    assert state.outcome == "degraded"


sites = st.sampled_from("abcdez")
times = st.floats(min_value=100.0, max_value=130.0)
answers = st.sampled_from([Status.OK, Status.REFUSED, Status.FAILED, Status.INVALID])
numbers = st.sampled_from([2, 3, 3, 3])
events = st.one_of(
    st.builds(Reply, site=sites, round=numbers, attempt=st.sampled_from([1, 1, 2]), at=times, status=answers),
    st.builds(Lost, site=sites, at=times),
    st.builds(Tick, at=times),
    st.builds(Stop, at=times),
)
rules = st.builds(
    lambda minimum, extra, over, deadline: Rules(
        minimum=minimum, goal=None if extra is None else minimum + extra, over_select=over, deadline_s=deadline
    ),
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(0, 3)),
    st.floats(1.0, 3.0),
    st.floats(0.1, 20.0),
)


@given(rules=rules, candidates=st.lists(st.sampled_from("abcde"), max_size=6), history=st.lists(events, max_size=25))
def test_every_sequence_ends_by_the_deadline_with_one_named_outcome(
    rules: Rules, candidates: list[str], history: list[object]
) -> None:
    state, effects = open_round(rules, number=3, attempt=1, candidates=candidates, at=100.0)
    state, more = play(state, *history, Tick(at=state.deadline))
    closes = [effect for effect in [*effects, *more] if isinstance(effect, Close)]
    counted = [effect.site for effect in more if isinstance(effect, Count)]
    assert len(closes) == 1
    assert state.outcome in ("completed", "degraded", "abandoned")
    assert state.reason
    assert Status.ASKED not in state.sites.values()
    assert len(counted) == len(set(counted)) == len(state.having(Status.OK))
    if state.outcome == "completed":
        assert len(counted) >= state.goal
    elif state.outcome == "degraded":
        assert rules.minimum <= len(counted) < state.goal


@given(history=st.lists(events, max_size=25))
def test_nothing_counts_after_the_close(history: list[object]) -> None:
    _, effects = play(opened(), *history)
    kinds = [type(effect) for effect in effects]
    if Close in kinds:
        assert Count not in kinds[kinds.index(Close) :]
