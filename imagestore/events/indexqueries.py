"""What the index is asked, as SQL.

Pure.  The tables are those of :mod:`imagestore.events.index`; whatever a
caller says travels as a value, never as part of a query.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from imagestore.events.selection import SHORT_CHARACTERS, Filter

Query = tuple[str, list[object]]


class Wanted(Struct, frozen=True, kw_only=True):
    """Which operations to list, newest first: those accepted before event ``before``, if that is not 0.

    ``outcome`` is succeeded, failed or cancelled; running are those without one; "" is all.
    ``dataset`` is named without the pool, and means all below it as well.
    ``since_ns`` in nanoseconds since 1970.
    """

    method: str = ""
    who: str = ""
    outcome: str = ""
    dataset: str = ""
    since_ns: int = 0
    before: int = 0
    limit: int = 100


LARGEST = (1 << 63) - 1
"""What SQLite holds; whatever is larger is as good as never."""

_WHO = "who = (SELECT number FROM words WHERE kind = 1 AND word = ?)"


def operations_query(wanted: Wanted) -> Query:
    """Rows of id, first_seq and last_seq, the newest first."""
    terms = ["1"]
    values: list[object] = []
    for term, value in (
        ("method = ?", wanted.method),
        (_WHO, wanted.who),
        ("started_ns >= ?", wanted.since_ns),
        ("first_seq < ?", wanted.before),
    ):
        if value:
            terms.append(term)
            values.append(min(value, LARGEST) if isinstance(value, int) else value)
    if wanted.outcome == "running":
        terms.append("last_seq IS NULL")
    elif wanted.outcome:
        terms.append("outcome = ?")
        values.append(wanted.outcome)
    if wanted.dataset:
        inside, names = _within(wanted.dataset)
        terms.append(
            "first_seq IN (SELECT operation FROM events WHERE operation IS NOT NULL "
            "AND seq IN (SELECT seq FROM subjects WHERE " + inside + "))"
        )
        values += names
    query = "SELECT id, first_seq, last_seq FROM operations WHERE " + " AND ".join(terms)
    return query + " ORDER BY first_seq DESC LIMIT ?", [*values, wanted.limit]


def count_queries(wanted: Filter, most: int) -> list[Query]:
    """How many events are about each thing that ``wanted`` names, counted up to ``most``: one row each."""
    return [
        ("SELECT count(*) FROM (SELECT 1 FROM subjects WHERE " + inside + " LIMIT ?)", [*names, most])
        for inside, names in _subjects(wanted)
    ]


def first_of_last_query(query: Query) -> Query:
    """One row: the least seq of what ``query`` finds, NULL of nothing."""
    return "SELECT min(seq) FROM (" + query[0] + ")", query[1]


def search_query(
    wanted: Filter, common: Sequence[bool], *, first: int | None = None, last: int | None = None
) -> Query:
    """Rows of seq, in order, the ``first`` so many; or the ``last`` so many, the last first.

    ``common`` tells of each thing named whether many events are about it: then
    the plus signs keep SQLite from gathering and sorting them all.
    """
    terms = ["seq >= ?"]
    values: list[object] = [min(wanted.from_seq, LARGEST)]
    if wanted.before_seq is not None:
        terms.append("seq < ?")
        values.append(min(wanted.before_seq, LARGEST))
    for (inside, names), is_common in zip(_subjects(wanted), common, strict=True):
        operation = "+operation" if is_common else "operation"
        about = "FROM subjects JOIN events USING (seq) WHERE " + inside + " AND operation IS "
        terms.append(
            f"({operation} IN (SELECT operation {about} NOT NULL)"
            f" OR ({operation} IS NULL AND seq IN (SELECT seq {about} NULL)))"
        )
        values += [*names, *names]
    if wanted.who is not None:
        terms.append(_WHO)
        values.append(wanted.who)
    if wanted.operation is not None:
        meant = f"substr(id, -{SHORT_CHARACTERS})" if len(wanted.operation) == SHORT_CHARACTERS else "id"
        terms.append("operation IN (SELECT first_seq FROM operations WHERE " + meant + " = ?)")
        values.append(wanted.operation)
    if wanted.types:
        marks = ", ".join("?" * len(wanted.types))
        terms.append("type IN (SELECT number FROM words WHERE kind = 0 AND word IN (" + marks + "))")
        values += wanted.types
    for term, moment in (("time_ns >= ?", wanted.since_ns), ("time_ns <= ?", wanted.until_ns)):
        if moment is not None:
            terms.append(term)
            values.append(min(moment, LARGEST))
    query = "SELECT seq FROM events WHERE " + " AND ".join(terms)
    order, limit = ("ASC", first) if last is None else ("DESC", last)
    return query + f" ORDER BY seq {order} LIMIT ?", [*values, -1 if limit is None else min(limit, LARGEST)]


def named_query(dataset: str, most: int, *, newest: bool) -> Query:
    """Rows of seq: what is about exactly this dataset, and how those operations began and ended.

    The ``most`` newest, the last first; or the oldest, the first first.
    """
    query = (
        "WITH about AS (SELECT seq FROM subjects WHERE word = "
        "(SELECT number FROM words WHERE kind = 2 AND word = ?)), "
        "changes AS (SELECT DISTINCT operation FROM events "
        "WHERE operation IS NOT NULL AND seq IN (SELECT seq FROM about)) "
        "SELECT seq FROM about UNION SELECT operation FROM changes UNION "
        "SELECT last_seq FROM operations WHERE last_seq IS NOT NULL "
        "AND first_seq IN (SELECT operation FROM changes) ORDER BY seq "
    )
    return query + ("DESC" if newest else "ASC") + " LIMIT ?", [dataset, most]


def _subjects(wanted: Filter) -> Iterator[Query]:
    """For each thing that the events are to be about: the condition on ``subjects``, and its values."""
    if wanted.dataset is not None:
        yield _within(wanted.dataset)
    for kind, word in ((3, wanted.image), (4, wanted.guest)):
        if word is not None:
            yield "word = (SELECT number FROM words WHERE kind = ? AND word = ?)", [kind, word]


def _within(dataset: str) -> Query:
    """The condition on ``subjects`` that one is ``dataset``, or what lies in it."""
    words = (
        "SELECT number FROM words WHERE kind = 2 AND (word = ? OR (word > ? AND word < ?)"
        " OR (word > ? AND word < ?))"
    )
    following = (dataset + chr(ord(mark) + 1) for mark in "/@")
    values = [dataset]
    for mark, end in zip("/@", following, strict=True):
        values += [dataset + mark, end]
    return "word IN (" + words + ")", list(values)
