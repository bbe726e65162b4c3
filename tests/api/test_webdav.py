"""WebDAV class 1: what a client needs to mount a session."""

from xml.etree import ElementTree

import pytest

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
    body = b'<?xml version="1.0"?><D:propfind xmlns:D="DAV:" xmlns:x="urn:x"><D:prop><D:displayname/><D:getetag/><x:colour/></D:prop></D:propfind>'
    (item,) = responses(propfind(session, "/proc/meminfo", "0", body)).values()
    given, missing = item.findall(f"{D}propstat")
    assert [child.tag for child in given.find(f"{D}prop")] == [f"{D}displayname"]
    assert given.findtext(f"{D}status") == "HTTP/1.1 200 OK"
    assert [child.tag for child in missing.find(f"{D}prop")] == [f"{D}getetag", "{urn:x}colour"]
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
        b"<a>" * 100_000,
        b'<?xml version="1.0" encoding="x"?><a/>',
    ],
)
def test_bad_xml_is_refused_without_being_expanded(session, body):
    problem(propfind(session, "/proc", "0", body), 400)


def test_what_is_not_there(session):
    assert problem(propfind(session, "/nothing"), 404)["errno"] == "ENOENT"


def test_options_tell_the_class(session):
    answer = session.request("OPTIONS", "/fs/proc")
    assert (answer.status_code, answer.headers["dav"]) == (204, "1")
    assert {"PROPFIND", "PUT", "MKCOL", "DELETE", "GET"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("method", ["COPY", "MOVE", "PROPPATCH", "LOCK"])
def test_the_kernels_files_are_not_moved(session, method):
    problem(session.request(method, "/fs/proc/meminfo", headers={"Destination": "/x"}), 403, method)
