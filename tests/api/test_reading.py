"""Bodies that are right are read without their models, which say what is wrong with the others: the two agree on every body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Problem
from app.schemas.calls import BODIES, CALLS, OP_ADAPTER, Batch, parse_batch, parse_body, parse_op, to_op

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1 << 65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["64K", "0x1000", "5s", "rw", "none", "read", "random", "dontneed", "SIGKILL", "/data/f", "a", "", "base64:AA==", "\0"]),
    st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["private", "anonymous", "fixed"])), max_size=3),
    st.dictionaries(st.sampled_from(["op", "name"]), st.integers(), max_size=2),
)


@st.composite
def bodies(draw):
    """A call and a body: its arguments with values of all kinds, some left out, now and then one that it does not have."""
    name = draw(st.sampled_from(sorted(CALLS)))
    names = [*CALLS[name].params, *draw(st.sampled_from([(), (), ("seq",), ("pid",), ("unknown",)]))]
    return name, draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES)))


def by_model(model, raw):
    """What a model makes of a body, None when it refuses it."""
    try:
        return {key: value for key, value in model.model_validate_json(raw).__dict__.items() if value is not None}
    except ValueError:
        return None


@given(bodies())
def test_a_body_is_read_as_its_model_reads_it(drawn):
    name, body = drawn
    raw = json.dumps(body).encode()
    expected = by_model(BODIES[name], raw)
    if expected is None:
        with pytest.raises(Problem) as refused:
            parse_body(name, raw)
        assert refused.value.status == 422 and refused.value.extra["errors"]
    else:
        assert parse_body(name, raw) == expected


@given(st.lists(bodies(), min_size=1, max_size=3), st.sampled_from([{}, {"stop_on_error": True}, {"stop_on_error": 1}, {"more": 1}]))
def test_a_batch_is_read_as_its_model_reads_it(drawn, more):
    ops = [{"op": name, **({"pid": 101} if CALLS[name].process else {}), **body} for name, body in drawn]
    raw = json.dumps({"ops": ops, **more}).encode()
    expected = by_model(Batch, raw)
    if expected is None:
        with pytest.raises(Problem, check=lambda problem: problem.status == 422):
            parse_batch(raw, 100)
        return
    found, stop = parse_batch(raw, 100)
    assert (found, stop) == ([to_op(model) for model in expected["ops"]], expected["stop_on_error"])
    assert found == [parse_op(json.dumps(op).encode()) for op in ops] == [to_op(OP_ADAPTER.validate_python(op)) for op in ops]


WRONG = [b"", b"[]", b"1", b"null", b'"x"', b"{", b"\xff", b'{"ops": 1}', b'{"ops": [1]}', b'{"ops": [{"op": []}]}', b'{"ops": [{}]}']


@pytest.mark.parametrize("raw", WRONG)
def test_what_is_no_batch_is_refused(raw):
    with pytest.raises(Problem, check=lambda problem: problem.status == 422):
        parse_batch(raw, 100)
