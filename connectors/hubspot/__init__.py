"""HubSpot: a hold is a few properties of the contact and an active list made of them, which marketing e-mails and workflows leave out.

Every call is from the vendor's own specification (https://github.com/HubSpot/HubSpot-public-api-spec-collection, v3) [V]; pages are
named where they matter. Consent (communication preferences), GDPR deletion and list membership are nowhere touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import Field, SecretStr, field_validator

from connectors.hubspot import contacts, emails, schema
from connectors.hubspot.api import HOME, Api, Declined, Resource, context, errors
from connectors.hubspot.contacts import CONTACTS_PATH, properties
from connectors.hubspot.schema import CONTACTS, CORE, PROPERTIES
from connectors.shared.loopback import is_loopback_url
from hub.contract import Http, Pace, Refused
from hub.marketing import Campaign, Check, Fate, Marked, Proved, ReadBack, Step, ToolSettings, Wish

_EMAIL_PAGES = 20  # of 100
_EMAILS_BACK = 180 * 86_400.0  # seconds: what was last changed before that is not coming any more


class HubSpotSettings(ToolSettings):
    """One HubSpot account, by a private app's access token. Its scopes: crm.objects.contacts read and write, crm.schemas.contacts
    read and write, crm.lists read and write; marketing.email read (or content) for the campaign watch."""

    access_token: SecretStr
    external_id_property: str = Field(default="", pattern=r"^[a-z0-9_]{0,100}$")  # the contact property with your own id, a unique one
    hold_list_name: str = "Support hold"
    account_id: str = Field(default="", pattern=r"^[0-9]{0,12}$")  # the account's number (Hub ID), for links to campaigns

    @field_validator("access_token")
    @classmethod
    def _check_token(cls, token: SecretStr) -> SecretStr:
        text = token.get_secret_value()
        if not text or not text.isascii() or any(character.isspace() for character in text):
            raise ValueError("access_token must be a private app's token (pat-...), from Settings > Integrations > Private Apps in HubSpot")
        return token

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url)))):
            raise ValueError("base_url must be https:// (http only on this machine): the access token travels with every call")
        return url


class HubSpot:
    """`marketing.MarketingTool` on one HubSpot account; also watches scheduled e-mails and knows the lists of a contact.

    `pace` counts calls of `mark`, each of one customer: at most three look-ups and a write, where a private app may make 100 to 190
    calls in ten seconds and an account 5 searches a second
    (https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines).
    """

    Settings: ClassVar[type[ToolSettings]] = HubSpotSettings
    label: ClassVar[str] = "HubSpot"
    kinds: ClassVar[tuple[str, ...]] = ("email", "phone", "external_id")
    proved: ClassVar[Proved] = Proved.SPECIFICATION
    lapse: ClassVar[str] = (
        "A property that changes moves its contact at once; when a lease that merely ran out frees it HubSpot does not promise: its "
        "lists look at dates by themselves, so count on a day."
    )
    settles: ClassVar[float] = 15.0
    reads_back: ClassVar[bool] = True
    pace: ClassVar[Pace] = Pace(per_second=2.0, burst=5)

    def __init__(self, settings: HubSpotSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._list = ""  # the hold list's id, once it is known

    def is_sandbox(self) -> bool:
        """Whether the calls stay on this machine."""
        return is_loopback_url(self._settings.base_url)

    def _api(self, http: Http) -> Api:
        return Api(http, self._settings.base_url or HOME, self._settings.access_token, self.name)

    # --- contacts ---

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Look the contacts up, then update those that stand otherwise (`POST .../batch/update`). A contact that bears a later version
        is left as it is. With `create_profiles` an unknown one is made by `POST /crm/v3/objects/contacts`."""
        api = self._api(http)
        found = await contacts.find(api, wishes, self._settings.external_id_property)
        wanted: dict[str, Wish] = {}  # what several wishes find is written once
        seen: dict[str, Resource] = {}
        for wish, one in zip(wishes, found, strict=True):
            for contact in one.contacts:
                id = str(contact["id"])
                seen[id] = contact
                known = wanted.get(id)
                if known is None or (wish.version, wish.held) > (known.version, known.held):
                    wanted[id] = wish
        fates = {id: Marked(fate=Fate.ACCEPTED, profile=id) for id in wanted}
        fates |= await self._update(api, {id: properties(wish) for id, wish in wanted.items() if not contacts.stands(seen[id], wish)})
        made: dict[tuple[str, str], Marked] = {}
        answers = []
        for wish, one in zip(wishes, found, strict=True):
            if one.contacts or one.error or not self._settings.create_profiles:
                answers.append(contacts.together(one, [fates[str(contact["id"])] for contact in one.contacts]))
                continue
            key = contacts.key_of(wish)
            if key not in made:
                made[key] = await self._create(api, wish)
            answers.append(made[key])
        return answers

    async def _update(self, api: Api, writes: Mapping[str, Mapping[str, str]]) -> dict[str, Marked]:
        """Update contacts in one call; where that is refused as a whole for the sake of some of them, one by one."""
        if not writes:
            return {}
        inputs: list[dict[str, Any]] = [{"id": id, "properties": dict(values)} for id, values in writes.items()]
        try:
            answer = await self._written(api, "POST", f"{CONTACTS_PATH}/batch/update", {"inputs": inputs}, inputs)
        except Declined as error:
            if len(inputs) == 1:
                return {inputs[0]["id"]: _refused(error, inputs[0]["id"])}
            alone = [await self._update(api, {id: values}) for id, values in writes.items()]
            return {id: marked for one in alone for id, marked in one.items()}
        done = {str(one.get("id")) for one in answer.get("results") or ()}
        why = {id: str(one.get("category") or "") for one in errors(answer) for id in context(one, "ids")}
        # What is in no result was not written, whether an error names it or not.
        return {
            id: Marked(fate=Fate.ACCEPTED, profile=id)
            if id in done
            else Marked(fate=Fate.REFUSED, profile=id, error=f"HubSpot refuses this contact: {why.get(id) or 'it gives no reason'}.")
            for id in writes
        }

    async def _written(self, api: Api, method: str, path: str, body: Resource, inputs: Sequence[Mapping[str, Any]]) -> Resource:
        """A write; done again without them where properties beside the hold itself are not there. Raises Declined, or Refused where the
        hold's own are missing."""
        try:
            return await api.call(method, path, body)
        except Declined as error:
            missing = _missing_properties(error)
            if not missing:
                raise
            if missing & CORE:
                raise Refused(
                    f"HubSpot has no contact property {' or '.join(sorted(missing & CORE))}; nobody was marked. Prepare "
                    f"destinations.{self.name} in the set-up, which creates what is missing, or create it by hand."
                ) from error
            for one in inputs:
                for name in missing:
                    one["properties"].pop(name, None)
            return await api.call(method, path, body)

    async def _create(self, api: Api, wish: Wish) -> Marked:
        own = self._settings.external_id_property
        key = {"email": "email", "phone": "phone", "external_id": own}[wish.kind]
        body = {"properties": {**{name: value for name, value in properties(wish).items() if value}, key: wish.value}}
        try:
            answer = await self._written(api, "POST", CONTACTS_PATH, body, [body])
        except Declined as error:
            return _refused(error, "")
        return Marked(fate=Fate.ACCEPTED, profile=str(answer.get("id") or ""))

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """How the contacts stand, and whether the hold list shows the same (`POST /crm/v3/lists/records/memberships/batch/read`)."""
        api = self._api(http)
        found = await contacts.find(api, wishes, self._settings.external_id_property)
        ids = sorted({str(contact["id"]) for one in found for contact in one.contacts})
        members = await self._held_in_list(api, ids) if ids else None
        return [contacts.read_back(one.contacts, wish, members, now) for wish, one in zip(wishes, found, strict=True)]

    # --- the list ---

    async def _held_in_list(self, api: Api, ids: Sequence[str]) -> frozenset[str] | None:
        """Which of these contacts the hold list has now; None where there is no such list or the token may not look."""
        try:
            hold = await self._list_id(api)
            if not hold:
                return None
            inputs = [{"objectTypeId": CONTACTS, "recordId": id} for id in ids]
            answer = await api.call("POST", "/crm/v3/lists/records/memberships/batch/read", {"inputs": inputs})
        except (Refused, Declined):
            self._list = ""  # it may have been deleted: look for it by name the next time
            return None
        told: Sequence[Resource] = answer.get("results") or ()
        if {str(one.get("recordId")) for one in told} != set(ids):
            return None  # of some it does not say
        return frozenset(
            str(one["recordId"]) for one in told if hold in {str(each.get("listId")) for each in one.get("recordListMemberships") or ()}
        )

    async def _list_id(self, api: Api) -> str:
        if not self._list:
            found = await self._find_list(api)
            self._list = str(found["listId"]) if found else ""
        return self._list

    async def _find_list(self, api: Api) -> Resource | None:
        path = f"/crm/v3/lists/object-type-id/{CONTACTS}/name/{quote(self._settings.hold_list_name, safe='')}?includeFilters=true"
        try:
            answer = await api.call("GET", path)
        except Declined as error:
            if error.status == 404:
                return None
            raise
        found: Resource = answer.get("list") or answer
        return found if found.get("listId") else None

    async def audiences(self, profile: str, http: Http) -> frozenset[str]:
        """`GET /crm/v3/lists/records/0-1/{id}/memberships`. None of a contact that is gone."""
        try:
            answer = await self._api(http).call("GET", f"/crm/v3/lists/records/{CONTACTS}/{quote(profile, safe='')}/memberships")
        except Declined as error:
            if error.status == 404:
                return frozenset()
            raise Refused(f"HubSpot does not tell the lists of a contact: {error}.") from error
        return frozenset(str(one["listId"]) for one in answer.get("results") or ())

    # --- setting it up ---

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Whether the token is accepted, and the properties, the list and the e-mails can be seen. Changes nothing."""
        return await self._checks(self._api(http), create=False)

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Create the properties and the list that are not there."""
        return await self._checks(self._api(http), create=True)

    async def _checks(self, api: Api, create: bool) -> Sequence[Check]:
        try:
            await api.call("GET", f"{CONTACTS_PATH}?limit=1&properties=email")
        except (Refused, Declined) as error:
            if create:
                raise Refused(str(error)) from error
            return [Check(name="Access token", ok=False, text=str(error))]
        checks = [Check(name="Access token", ok=True, text="HubSpot accepts the token and lets it read contacts.")]
        for name, look in (("Properties", self._check_properties), ("Hold list", self._check_list)):
            try:
                checks.append(await look(api, create))
            except (Refused, Declined) as error:
                checks.append(Check(name=name, ok=False, text=f"{error} Or do it by hand as the steps say."))
        if self._settings.external_id_property:
            checks.append(await self._check_own_id(api))
        try:
            await api.call("GET", "/marketing/v3/emails?limit=1&includedProperties=id")
            checks.append(Check(name="Campaign watch", ok=True, text="The token may read marketing e-mails."))
        except (Refused, Declined) as error:
            checks.append(Check(name="Campaign watch", ok=False, text=str(error)))
        return checks

    async def _check_properties(self, api: Api, create: bool) -> Check:
        body = {"archived": False, "dataSensitivity": "non_sensitive", "inputs": [{"name": name} for name in PROPERTIES]}
        found = {
            str(one.get("name")): one
            for one in (await api.call("POST", "/crm/v3/properties/contacts/batch/read", body)).get("results") or ()
        }
        missing = [name for name in PROPERTIES if name not in found]
        wrong = [name for name, one in found.items() if name in PROPERTIES and one.get("type") != PROPERTIES[name][1]]
        for name in missing if create else ():
            await api.call("POST", "/crm/v3/properties/contacts", schema.creation(name))
        if wrong:
            asked = ", ".join(f"{name} must be of the type {PROPERTIES[name][1]}" for name in wrong)
            return Check(name="Properties", ok=False, text=f"Contact properties of another type are in the way: {asked}.")
        if missing and not create:
            return Check(
                name="Properties", ok=False, text=f"HubSpot has no contact property {', '.join(missing)}: prepare creates what is missing."
            )
        return Check(name="Properties", ok=True, text=f"The contact properties are there: {', '.join(PROPERTIES)}.")

    async def _check_list(self, api: Api, create: bool) -> Check:
        name = self._settings.hold_list_name
        found = await self._find_list(api)
        if found is None and create:
            answer = await api.call("POST", "/crm/v3/lists", schema.list_creation(name))
            found = answer.get("list") or answer
        if found is None:
            return Check(name="Hold list", ok=False, text=f'There is no list "{name}": prepare creates it, or follow the steps.')
        self._list = str(found["listId"])
        lacks = schema.list_lacks(found)
        if lacks:
            return Check(name="Hold list", ok=False, text=f'The list "{name}" {lacks}: correct it as the steps say.')
        return Check(name="Hold list", ok=True, text=f'The active list "{name}" is there ({self._list}).')

    async def _check_own_id(self, api: Api) -> Check:
        own = self._settings.external_id_property
        try:
            found = await api.call("GET", f"/crm/v3/properties/contacts/{quote(own, safe='')}")
        except (Refused, Declined) as error:
            return Check(
                name="Own id",
                ok=False,
                text=f"HubSpot has no contact property {own}: {error} Mend destinations.{self.name}.external_id_property.",
            )
        if found.get("hasUniqueValue") is not True and own != "hs_object_id":
            return Check(
                name="Own id", ok=False, text=f"The property {own} does not require unique values, so contacts are not looked up by it."
            )
        return Check(name="Own id", ok=True, text=f"Contacts are looked up by {own} too.")

    def steps(self) -> Sequence[Step]:
        """See `schema.steps`."""
        return schema.steps(self._settings.hold_list_name)

    # --- campaigns ---

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        """`GET /marketing/v3/emails`, those changed in half a year: it cannot be asked for those scheduled alone."""
        api = self._api(http)
        try:
            hold = await self._list_id(api)
        except (Declined, Refused):
            hold = ""
        since = datetime.fromtimestamp(max(now - _EMAILS_BACK, 0.0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        asked = [("limit", "100"), ("updatedAfter", since), *(("includedProperties", name) for name in emails.FIELDS)]
        found: list[Campaign] = []
        after = ""
        for _ in range(_EMAIL_PAGES):
            query = urlencode([*asked, *([("after", after)] if after else [])], quote_via=quote)
            try:
                answer = await api.call("GET", f"/marketing/v3/emails?{query}")
            except Declined as error:
                raise Refused(f"HubSpot does not list its marketing e-mails: {error}.") from error
            judged = (
                emails.campaign(one, hold, self._settings.hold_list_name, self._settings.account_id) for one in answer.get("results") or ()
            )
            found += [one for one in judged if one]
            following = str(((answer.get("paging") or {}).get("next") or {}).get("after") or "")
            if not following or following == after:
                break
            after = following
        return sorted(found, key=lambda one: (one.send_at or 0.0, one.id))


def _refused(error: Declined, id: str) -> Marked:
    return Marked(fate=Fate.REFUSED, profile=id, error=f"HubSpot refuses this contact: {error}.")


def _missing_properties(error: Declined) -> set[str]:
    """The properties an error says are not there."""
    return {name for one in errors(error.body) if one.get("code") == "PROPERTY_DOESNT_EXIST" for name in context(one, "propertyName")}
