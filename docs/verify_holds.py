#!/usr/bin/env python3
# ruff: noqa: T201, UP017, B905  (it speaks to people, and runs on older Pythons than the hub)
"""Check a proof of holds without the hub that wrote it. Python 3.9 or later, nothing else. What it checks is said in proof.md.

    python3 verify_holds.py REPORT.json [--key PUBLIC_KEY] [--head NUMBER:HASH]...

Ask whoever gave you the report for nothing: take the public key and the heads from where they were published at the time.
Prints what the report says and exits 0 if it holds; prints what is wrong and exits 1 if it does not.
"""

import argparse
import hashlib
import json
import re
import sys
from datetime import datetime, timedelta, timezone

FORMAT = "hub proof of holds 1"
MEMBERS = ["anchor", "chain", "format", "head", "identifiers", "public_key", "report", "signature"]


class Refused(Exception):
    pass


def must(true, otherwise):
    if not true:
        raise Refused(otherwise)


def canonical(value):
    """Keys in order, no white space, everything but ASCII escaped."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


# --- Ed25519 (RFC 8032, section 5.1.7), verification only ---

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(a, b):
    """The sum of two points in extended coordinates (section 5.1.4)."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    return (f - e) * (h - g) % P, (h + g) * (f + e) % P, (h - g) * (h + g) % P, (f - e) * (f + e) % P


def times(number, point):
    result = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = add(result, point)
        point = add(point, point)
        number >>= 1
    return result


def point_of(data):
    """The point 32 bytes stand for, or None (section 5.1.3)."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(key, signature, message):
    """Whether this key (32 bytes) made this signature (64 bytes)."""
    a, r, s = point_of(key), point_of(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = times(s, BASE), add(r, times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# --- Times ---


def micros(text):
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


def iso(at):
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=at)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


# --- The chain ---


def check_chain(document):
    """Each link follows on the one before it, from the anchor to the head."""
    number, before = document["anchor"]["seq"], document["anchor"]["hash"]
    rows, report = document["chain"], document["report"]
    for row in rows:
        number += 1
        said = {name: value for name, value in row.items() if name != "hash"}
        names = ["at", "customer_id", "data", "destination", "event_seq", "seq", "type"]
        must(sorted(said) == names and row["seq"] == number, f"link {number} is missing, or out of place")
        before = sha256(before + "\n" + canonical(said))
        must(row["hash"] == before, f"link {number} is not what was sealed, or the one before it")
    must(rows, "there is no link")
    first, last = rows[0], rows[-1]
    must(document["head"] == {"seq": last["seq"], "hash": last["hash"], "at": last["at"]}, "the head is not the last link")
    if first["seq"] == 1:
        must(document["anchor"] == {"seq": 0, "hash": sha256(FORMAT + "\n" + report["chain"])}, "the chain begins with another one's start")
        must((first["type"], first["data"].get("chain")) == ("chain.begun", report["chain"]), "the first link begins another chain")
    else:
        must(first["at"] <= micros(report["from"]) - report["lead_s"] * 1000000, "links at the beginning are left out")
    if last["at"] < micros(report["to"]):
        must(report["latest"] == {"seq": last["seq"], "hash": last["hash"]}, "links at the end are left out")
    must(report["latest"]["seq"] >= last["seq"], "the report is older than its links")
    must(micros(report["made_at"]) >= micros(report["to"]), "the report was made before its period ended")


# --- What the chain comes to ---


def readable(row):
    return "unreadable" not in row["data"]


def spans_of(rows):
    """{customer: [[begin, end, reasons, first version, last version]]}: when each was held."""
    spans, held = {}, set()
    for row in rows:
        customer, data = row["customer_id"], row["data"]
        if not row["type"].startswith("hold.") or not readable(row) or customer is None:
            continue
        own = spans.setdefault(customer, [])
        if row["type"] == "hold.released":
            if customer in held:  # unless its lease had run out before
                own[-1][1] = min(own[-1][1], row["at"])
            held.discard(customer)
        elif customer in held and row["at"] <= own[-1][1]:
            own[-1][1], own[-1][4] = micros(data["until"]), data["version"]
            own[-1][2] |= set(data["reasons"])
        else:
            own.append([row["at"], micros(data["until"]), set(data["reasons"]), data["version"], data["version"]])
            held.add(customer)
    return spans


def merges_of(rows):
    """{customer: whom they were merged into, or themselves}: as it stood after the last link."""
    into = {}
    for row in rows:
        customer, data = row["customer_id"], row["data"]
        if not readable(row) or customer is None:
            continue
        if row["type"] == "customer.merged":
            into[data["other"]] = customer
            into.setdefault(customer, customer)
        elif row["type"] in ("customer.unmerged", "customer.split"):
            into[data["other"]] = data["other"]
            into.setdefault(customer, customer)
        elif row["type"].startswith("hold."):
            into.setdefault(customer, customer)
    return into


def person(customer, into):
    passed = set()
    while into.get(customer, customer) != customer and customer not in passed:
        passed.add(customer)
        customer = into[customer]
    return customer


def held_people(rows, into):
    """{person: [[begin, end, reasons, versions]]}: times that overlap or touch are one."""
    people = {}
    for customer, spans in spans_of(rows).items():
        for begin, end, reasons, first, last in spans:
            if begin < end:
                people.setdefault(person(customer, into), []).append([begin, end, reasons, [[customer, first, last]]])
    for one, spans in people.items():
        joined = []
        for span in sorted(spans, key=lambda each: (each[0], each[1], each[3])):
            if joined and span[0] <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], span[1])
                joined[-1][2] |= span[2]
                joined[-1][3] += span[3]
            else:
                joined.append(span)
        people[one] = joined
    return people


def held_in(rows, people, into, begin, end, of):
    known = {}
    for row in rows:
        if row["type"] in ("hold.placed", "hold.renewed") and readable(row) and row["customer_id"] is not None:
            for one in row["data"]["identifiers"]:
                known.setdefault(row["customer_id"], {})[one["kind"], one["value"]] = one["because"]
    told = []
    for one in sorted(people):
        inside = [span for span in people[one] if span[0] < end and span[1] > begin]
        if not inside or of not in (None, one):
            continue
        also = sorted(customer for customer in into if customer != one and person(customer, into) == one)
        names = {}
        for customer in [*also, one]:
            names.update(known.get(customer, {}))
        spans, length = [], 0
        for first, last, reasons, versions in inside:
            length += min(last, end) - max(first, begin)
            span = {"from": iso(max(first, begin)), "to": iso(min(last, end)), "before": first < begin, "after": last > end}
            spans.append(dict(span, reasons=sorted(reasons), versions=versions))
        identifiers = [{"kind": kind, "value": value, "because": names[kind, value]} for kind, value in sorted(names)]
        told.append({"customer": one, "also": also, "identifiers": identifiers, "spans": spans, "seconds": length // 1000000})
    return told


def sends_in(rows, people, into):
    counts, reached = {"seen": 0, "prevented": 0, "leaks": 0, "noted_leaks": 0}, []
    for row in rows:
        data = row["data"]
        if row["type"] != "send.seen" or not readable(row) or row["customer_id"] is None:
            continue
        at = micros(data["at"])
        held = any(span[0] <= at < span[1] for span in people.get(person(row["customer_id"], into), []))
        leak = held and not data["prevented"]
        for name, true in (("seen", True), ("prevented", data["prevented"]), ("leaks", leak), ("noted_leaks", data["leak"])):
            counts[name] += bool(true)
        if held or data["leak"]:
            one = {name: data[name] for name in ("at", "destination", "campaign", "campaign_id", "channel", "prevented", "cause")}
            one.update(link=row["seq"], seen=iso(row["at"]), customer=row["customer_id"], held=held, leak=leak, noted_leak=data["leak"])
            reached.append(one)
    return counts, reached


def gate_in(rows):
    counted = {}
    for row in rows:
        data = row["data"]
        if row["type"] == "gate.answered" and readable(row):
            about = (data["campaign"], data["brand"], data["class"], data["channel"])
            counts = counted.setdefault(about, [0, 0, 0, 0])
            for place, more in enumerate((data["asked"], data["held"], data["degraded"], len(data.get("receipts", [])))):
                counts[place] += more
    names = ("campaign", "brand", "class", "channel", "asked", "held", "degraded", "receipts")
    return [dict(zip(names, about + tuple(counted[about]))) for about in sorted(counted)]


def tools_in(rows):
    steps = {"mark.accepted": "accepted", "mark.confirmed": "confirmed", "mark.effective": "effective"}
    took = {}
    for row in rows:
        if row["type"] in steps and readable(row):
            key = (row["destination"], steps[row["type"]], row["data"]["held"])
            took.setdefault(key, []).append(max(0, row["at"] // 1000 - micros(row["data"]["asked_at"]) // 1000))
    told = []
    for (destination, step, held), values in sorted(took.items()):
        values.sort()
        rank = {percent: values[(percent * len(values) + 99) // 100 - 1] for percent in (50, 95)}
        one = {"destination": destination, "step": step, "held": held, "n": len(values)}
        told.append(dict(one, p50_ms=rank[50], p95_ms=rank[95], max_ms=values[-1]))
    return told


def recompute(document):
    """The report, from nothing but the links."""
    report, rows = document["report"], document["chain"]
    begin, end, wanted = micros(report["from"]), micros(report["to"]), report["customer"]
    into = merges_of(rows)
    people = held_people(rows, into)
    of = None if wanted is None else person(wanted, into)
    inside = []
    for row in rows:
        own = row["type"] in ("chain.begun", "chain.restored", "chain.damaged")
        about = own or of is None or (row["customer_id"] is not None and person(row["customer_id"], into) == of)
        if begin <= row["at"] < end and about:
            inside.append(row)
    kinds, troubles, warnings, breaks = {}, [], [], []
    for row in inside:
        kind, where = row["type"], {"link": row["seq"], "at": iso(row["at"])}
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind in ("chain.restored", "chain.damaged"):
            breaks.append(dict(where, type=kind))
        elif kind in ("mark.drifted", "mark.failed") and readable(row):
            error = row["data"].get("error", "")
            troubles.append(dict(where, type=kind, destination=row["destination"], customer=row["customer_id"], error=error))
        elif kind == "campaign.warned" and readable(row):
            data = row["data"]
            one = dict(where, destination=row["destination"], endangered=len(data["endangered"]))
            warnings.append(dict(one, campaign=data["campaign"], campaign_id=data["campaign_id"], risk=data["risk"]))
    sends, reached = sends_in(inside, people, into)
    return {
        "from": iso(begin),
        "to": iso(end),
        "lead_s": report["lead_s"],
        "customer": wanted,
        "links": kinds,
        "held": held_in(rows, people, into, begin, end, of),
        "sends": sends,
        "reached": reached,
        "gate": gate_in(inside),
        "tools": tools_in(inside),
        "troubles": troubles,
        "opt_outs": {word: kinds.get("optout." + word, 0) for word in ("recorded", "withdrawn")},
        "warnings": warnings,
        "breaks": breaks,
    }


# --- All of it ---


def check(text, key="", heads=()):
    """The report, if it holds. Raises Refused."""
    document = json.loads(text)
    must(isinstance(document, dict) and sorted(document) == MEMBERS, "this is no proof of holds")
    must(document["format"] == FORMAT, "this is a proof of another format")
    # There is one way to write a report: a file written in any other was changed.
    links = ",\n".join(canonical(row) for row in document["chain"])
    rest = ",\n".join(f'"{name}":{canonical(document[name])}' for name in MEMBERS[2:])
    written = f'{{"anchor":{canonical(document["anchor"])},\n"chain":[\n{links}\n],\n{rest}}}\n'
    must(text == written, "the file is not spelled as reports are written")
    signature, named = document["signature"], document["public_key"]
    must(re.fullmatch("[0-9a-f]{128}", signature) and re.fullmatch("[0-9a-f]{64}", named), "the signature or its key is none")
    part = {name: document[name] for name in MEMBERS if name not in ("chain", "signature")}
    must(signed(bytes.fromhex(named), bytes.fromhex(signature), canonical(part).encode()), "the signature is wrong")
    must(not key or key.lower() == named, "it is signed with another key: " + named)
    check_chain(document)
    shown = {row["seq"]: row["hash"] for row in document["chain"]}
    shown[document["anchor"]["seq"]] = document["anchor"]["hash"]
    for head in heads:
        number, hash_ = head.split(":")
        must(int(number) in shown, f"link {number}, which was published, is not among those shown")
        must(shown[int(number)] == hash_.lower(), f"link {number} was published with another hash")
    report, computed = document["report"], recompute(document)
    for name in sorted(set(report) | set(computed)):
        if name not in ("chain", "made_at", "latest"):  # what its maker alone knows
            same = name in report and name in computed and canonical(report[name]) == canonical(computed[name])
            must(same, f"what the report says under {name!r} does not follow from its links")
    wanted = {one["value"] for held in report["held"] for one in held["identifiers"]}
    for name, one in document["identifiers"].items():
        opened = sha256(one["opening"] + "\n" + canonical([one["kind"], one["value"]]))[:40]
        must(name == opened and name in wanted, "an identifier named in clear is not the one that was sealed")
    return document


def main():
    parser = argparse.ArgumentParser(description="Check a proof of holds.")
    parser.add_argument("report")
    parser.add_argument("--key", default="", help="the public key it must be signed with (64 hexadecimal digits)")
    parser.add_argument("--head", action="append", default=[], help="NUMBER:HASH of a link, as it was published at the time")
    given = parser.parse_args()
    try:
        with open(given.report, "rb") as file:
            document = check(file.read().decode("ascii"), given.key, given.head)
    except (Refused, OSError) as error:
        print(f"REFUSED: {error}")
        return 1
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        print(f"REFUSED: this is no proof of holds, or not as it was written ({type(error).__name__})")
        return 1
    report, head = document["report"], document["head"]
    sends = report["sends"]
    print(f"HOLDS: {len(document['chain'])} links, {report['from']} to {report['to']}")
    print(f"  {len(report['held'])} customers held, {sends['seen']} sends seen, {sends['leaks']} of them to somebody held, not prevented")
    print(f"  head {head['seq']}:{head['hash']}")
    print(f"  signed with {document['public_key']}{'' if given.key else ': compare it with the key that was published'}")
    for one in report["breaks"]:
        print(f"  note: link {one['link']} says {one['type']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
