"""WebDAV: what a client needs to mount a session."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import Problem
from app.host.locks import LONGEST_S, MOST, Locks
from tests.api.client import problem

D = "{DAV:}"


def propfind(session, path, depth="1", body=b""):
    return session.request("PROPFIND", f"/fs{path}", headers={"Depth": depth}, content=body)


def responses(answer):
    assert answer.status_code == 207, answer.text
    assert answer.headers["content-type"] == 'application/xml; charset="utf-8"'
    tree = ElementTree.fromstring(answer.content)
    assert tree.tag == f"{D}multistatus"
    return {item.findtext(f"{D}href"): item for item in tree}


def test_a_directory_lists_itself_and_what_is_in_it(session):
    found = responses(propfind(session, "/proc"))
    base = f"{session.path}/fs/proc"
    assert f"{base}/" in found
    assert f"{base}/meminfo" in found and f"{base}/sys/" in found
    assert found[f"{base}/sys/"].find(f".//{D}resourcetype/{D}collection") is not None
    assert found[f"{base}/meminfo"].find(f".//{D}resourcetype/{D}collection") is None
    assert found[f"{base}/meminfo"].findtext(f".//{D}getcontenttype").startswith("text/plain")
    assert len(found) == 1 + len(session.get("/fs/proc").text.splitlines())


def test_depth_0_is_the_thing_itself(session):
    assert list(responses(propfind(session, "/proc", "0"))) == [f"{session.path}/fs/proc/"]
    assert list(responses(propfind(session, "/proc/meminfo", "1"))) == [f"{session.path}/fs/proc/meminfo"]


def test_infinity_is_refused(session):
    problem(propfind(session, "/proc", "infinity"), 403, "Depth")
    problem(session.request("PROPFIND", "/fs/proc"), 403, "Depth")
    problem(propfind(session, "/proc", "7"), 400, "Depth")


def test_listed_properties_are_given_or_missing(session):
    body = b'<?xml version="1.0"?><D:propfind xmlns:D="DAV:" xmlns:x="urn:x"><D:prop><D:displayname/><D:quota/><x:colour/></D:prop></D:propfind>'
    (item,) = responses(propfind(session, "/proc/meminfo", "0", body)).values()
    given, missing = item.findall(f"{D}propstat")
    assert [child.tag for child in given.find(f"{D}prop")] == [f"{D}displayname"]
    assert given.findtext(f"{D}status") == "HTTP/1.1 200 OK"
    assert [child.tag for child in missing.find(f"{D}prop")] == [f"{D}quota", "{urn:x}colour"]
    assert missing.findtext(f"{D}status") == "HTTP/1.1 404 Not Found"


def test_names_only(session):
    body = b'<propfind xmlns="DAV:"><propname/></propfind>'
    (item,) = responses(propfind(session, "/proc/meminfo", "0", body)).values()
    assert item.findtext(f".//{D}displayname") == ""


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<D:propfind xmlns:D="DAV:"><D:prop><D:x>&b;</D:x></D:prop></D:propfind>"""


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        b"not xml",
        b"<x/>",
        b'<D:propfind xmlns:D="DAV:"/>',
        b'<D:propfind xmlns:D="DAV:">',
        b"\x00",
        b"<a>" * 20_000,
        b"<D:propfind xmlns:D='DAV:'>" + b"<a>" * 40 + b"</a>" * 40 + b"</D:propfind>",
        b"<D:propfind xmlns:D='DAV:'><D:prop>" + b"<D:a/>" * 300 + b"</D:prop></D:propfind>",
        b'<!DOCTYPE D:propfind SYSTEM "file:///etc/passwd"><D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>',
        "<D:propfind/>".encode("utf-16"),
        b'<D:propfind xmlns:D="DAV:"><D:prop><D:x>\xff</D:x></D:prop></D:propfind>',
        b'<?xml version="1.0" encoding="x"?><a/>',
    ],
)
def test_bad_xml_is_refused_without_being_expanded(session, body):
    problem(propfind(session, "/proc", "0", body), 400)


def test_what_is_not_there(session):
    assert problem(propfind(session, "/nothing"), 404)["errno"] == "ENOENT"


def test_a_large_body_is_refused(session):
    problem(propfind(session, "/proc", "0", b" " * (65 << 10) + b"<x/>"), 413, "propfind")


XML_BODIES = st.recursive(
    st.sampled_from(
        [b"<D:allprop/>", b"<D:propname/>", b"<D:prop><D:getetag/></D:prop>", b"x", b"&#0;", b"&lt;", b"<![CDATA[x]]>", b"<?pi?>", b"<a:b/>"]
    ),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: b"<D:prop>" + b"".join(parts) + b"</D:prop>"),
    max_leaves=12,
)


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
def test_no_xml_is_an_error_of_ours(session, method):
    @given(st.one_of(st.binary(max_size=60), XML_BODIES), st.sampled_from([b"propfind", b"lockinfo", b"propertyupdate", b"x"]))
    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def check(inner, root):
        body = b'<D:%s xmlns:D="DAV:">%s</D:%s>' % (root, inner, root)
        answer = session.request(method, "/fs/proc/meminfo", headers={"Depth": "0"}, content=body)
        assert answer.status_code in (200, 207, 423) or problem(answer, answer.status_code)["status"] in (400, 412, 413), answer.text
        if answer.status_code == 200:
            session.request("UNLOCK", "/fs/proc/meminfo", headers={"Lock-Token": answer.headers["lock-token"]})

    check()


def length(item):
    return int(item.findtext(f".//{D}getcontentlength"))


def test_sizes_are_what_is_read(session):
    """Clients read as many bytes as they are told, so a file's length is the true one, where Linux says 0."""
    pid = session.spawn()
    for folder in ("/proc", f"/proc/{pid}", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage"):
        found = responses(propfind(session, folder))
        files = {href: item for href, item in found.items() if item.find(f".//{D}collection") is None}
        assert len(files) > 2
        for href, item in files.items():
            if length(item) < 1 << 20:  # the others are kpageflags and the like
                answer = session.service.http.get(href)
                assert length(item) == (len(answer.content) if answer.status_code == 200 else 0), href


def test_the_root_with_and_without_a_slash(session):
    assert set(responses(propfind(session, ""))) == set(responses(propfind(session, "/"))) >= {f"{session.path}/fs/proc/"}
    assert session.request("OPTIONS", "/fs").status_code == 204


def test_options_tell_the_classes(session):
    answer = session.request("OPTIONS", "/fs/proc")
    assert (answer.status_code, answer.headers["dav"]) == (204, "1, 2")
    assert {"PROPFIND", "PUT", "MKCOL", "DELETE", "GET", "LOCK", "UNLOCK"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_the_kernels_files_are_not_moved(session, method):
    problem(session.request(method, "/fs/proc/meminfo", headers={"Destination": "/x"}), 403, method)


def test_properties_of_ones_own_are_refused_one_by_one(session):
    body = b'<D:propertyupdate xmlns:D="DAV:" xmlns:x="urn:x"><D:set><D:prop><x:colour>red</x:colour></D:prop></D:set></D:propertyupdate>'
    (item,) = responses(session.request("PROPPATCH", "/fs/proc/meminfo", content=body)).values()
    assert item.find(f".//{D}prop/{{urn:x}}colour") is not None
    assert item.findtext(f".//{D}status") == "HTTP/1.1 403 Forbidden"
    problem(session.request("PROPPATCH", "/fs/nothing", content=body), 404)
    problem(session.request("PROPPATCH", "/fs/proc/meminfo", content=b""), 400)


# ---- locks -----------------------------------------------------------------------------------------------------

SWAPPINESS = "/proc/sys/vm/swappiness"


def lockinfo(scope, owner=b""):
    return b'<D:lockinfo xmlns:D="DAV:"><D:lockscope>' + scope + b"</D:lockscope><D:locktype><D:write/></D:locktype>" + owner + b"</D:lockinfo>"


def lock(session, path=SWAPPINESS, scope="exclusive", **headers):
    body = lockinfo(b"<D:%s/>" % scope.encode(), b"<D:owner>me &amp; you</D:owner>")
    return session.request("LOCK", "/fs" + path, content=body, headers={"Depth": "0", **headers})


def put(session, value, path=SWAPPINESS, **headers):
    return session.put(path, value, headers=headers)


def test_a_lock_is_for_its_holder_until_it_is_given_back(session):
    answer = lock(session, Timeout="Infinite, Second-4100000000")
    token = answer.headers["lock-token"]
    tree = ElementTree.fromstring(answer.content)
    assert tree.findtext(f".//{D}timeout") == f"Second-{LONGEST_S}" and tree.findtext(f".//{D}owner") == "me & you"
    assert f"<{tree.findtext(f'.//{D}locktoken/{D}href')}>" == token
    (seen,) = responses(propfind(session, SWAPPINESS, "0")).values()
    assert seen.findtext(f".//{D}activelock/{D}locktoken/{D}href") == token.strip("<>")
    problem(put(session, "1"), 423, "locked")
    problem(lock(session), 423)
    problem(put(session, "1", If="(<urn:uuid:other>)"), 423)
    assert put(session, "7", If=f"({token})").status_code == 204
    assert put(session, "8", If=f"<http://x{session.path}/fs{SWAPPINESS}> ({token} [\"1.1\"])").status_code == 204
    assert put(session, "20", "/proc/sys/vm/dirty_ratio").status_code == 204
    refreshed = session.request("LOCK", "/fs" + SWAPPINESS, headers={"If": f"({token})", "Timeout": "Second-30"})
    assert "Second-30" in refreshed.text and refreshed.status_code == 200
    unlock = {"Lock-Token": token}
    assert session.request("UNLOCK", "/fs" + SWAPPINESS, headers=unlock).status_code == 204
    problem(session.request("UNLOCK", "/fs" + SWAPPINESS, headers=unlock), 409)
    problem(put(session, "1", If=f"({token})"), 412, "If")
    assert put(session, "9").status_code == 204


def test_shared_locks_share_and_a_tree_is_locked_as_a_whole(session):
    assert lock(session, scope="shared").status_code == lock(session, scope="shared").status_code == 200
    problem(lock(session), 423)
    session.put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    assert lock(session, "/sys/fs/cgroup", Depth="infinity").status_code == 200
    problem(session.request("MKCOL", "/fs/sys/fs/cgroup/a"), 423)
    problem(session.request("DELETE", "/fs/sys/fs/cgroup/a"), 423)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("UNLOCK", {}, 400),
        ("UNLOCK", {"Lock-Token": "urn:uuid:x"}, 400),
        ("LOCK", {"Depth": "1"}, 400),
        ("LOCK", {"If": "nonsense"}, 400),
        ("PUT", {"If": "("}, 400),
        ("PUT", {"Content-Range": "bytes 0-1/2"}, 400),
    ],
)
def test_bad_headers(session, method, headers, status):
    body = b"" if "If" in headers and method == "LOCK" else lockinfo(b"<D:exclusive/>")
    problem(session.request(method, "/fs" + SWAPPINESS, headers=headers, content=body), status)


def test_a_lock_of_what_is_not_there_or_of_no_kind(session):
    problem(lock(session, "/proc/nothing"), 404)
    problem(session.request("LOCK", "/fs" + SWAPPINESS, content=lockinfo(b"<D:other/>")), 400)
    problem(session.request("LOCK", "/fs" + SWAPPINESS, headers={"Depth": "0"}), 412)


def test_locks_end_by_themselves_and_are_bounded():
    now = [0.0]
    locks = Locks(lambda: now[0])
    first = locks.take("/a", True, False, "", 10**9)
    now[0] = LONGEST_S - 1
    assert locks.of("/a") == [first]
    now[0] = LONGEST_S + 1
    assert locks.of("/a") == []
    locks.require("/a", None)
    for number in range(MOST):
        locks.take(f"/{number}", True, False, "", 60)
    with pytest.raises(Problem, match=str(MOST)):
        locks.take("/more", True, False, "", 60)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", first.token)


def test_a_range_of_an_older_state_is_the_whole_file(session):
    """If-Range: a client that has the beginning of a file of an older state gets all of the new one."""
    first = session.get("/fs/proc/meminfo", headers={"Range": "bytes=0-9"})
    again = {"Range": "bytes=10-19", "If-Range": first.headers["etag"]}
    assert session.get("/fs/proc/meminfo", headers=again).status_code == 206
    session.spawn()
    assert session.get("/fs/proc/meminfo", headers=again).status_code == 200
