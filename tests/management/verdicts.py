"""Who may call what: reviewed by people, one row an operation. A new route without a row fails the tests."""

from __future__ import annotations

PLATFORM = ("platform_admin",)
ADMINS = ("platform_admin", "workspace_admin", "other_admin")
KEYS = (*ADMINS, "key_manager")
MEMBERS = (*ADMINS, "member")
EVERYBODY = (*ADMINS, "key_manager", "member", "viewer")

# Those who are nobody: the same 401 on every route.
NOBODY = ("none", "malformed", "unknown", "expired", "revoked", "client", "deleted_admin")
ROLES = (*EVERYBODY, *NOBODY)

# The roles that may, in their own workspace; everybody else with a key in force gets a 403 there.
ALLOWED: dict[str, tuple[str, ...]] = {
    "me.get": EVERYBODY,
    "workspaces.list": EVERYBODY,
    "workspaces.create": PLATFORM,
    "workspaces.get": EVERYBODY,
    "workspaces.update": ADMINS,
    "workspaces.delete": PLATFORM,
    "keys.list": EVERYBODY,
    "keys.create": KEYS,
    "keys.get": EVERYBODY,
    "keys.update": KEYS,
    "keys.rotate": KEYS,
    "keys.revoke": KEYS,
    "keys.delete": KEYS,
    "upstreams.list": EVERYBODY,
    "upstreams.create": ADMINS,
    "upstreams.get": EVERYBODY,
    "upstreams.update": ADMINS,
    "upstreams.delete": ADMINS,
    "upstreams.models": EVERYBODY,
    "upstreams.discover": ADMINS,
    "upstreams.test": ADMINS,
    "assistants.list": EVERYBODY,
    "assistants.create": MEMBERS,
    "assistants.get": EVERYBODY,
    "assistants.update": MEMBERS,
    "assistants.delete": MEMBERS,
    "assistants.versions": EVERYBODY,
    "assistants.roll_back": MEMBERS,
    "users.list": PLATFORM,
    "users.create": PLATFORM,
    "users.get": PLATFORM,
    "users.update": PLATFORM,
    "members.list": EVERYBODY,
    "members.create": ADMINS,
    "members.get": EVERYBODY,
    "members.update": ADMINS,
    "members.delete": ADMINS,
    "requests.list": EVERYBODY,
    "requests.facets": EVERYBODY,
    "requests.export": EVERYBODY,
    "requests.get": EVERYBODY,
    # What people have written.
    "requests.body": ADMINS,
    "requests.feedback": ADMINS,
    "assistants.reliability": EVERYBODY,
    "usage.get": EVERYBODY,
    "requests.list_all": PLATFORM,
    "requests.get_all": PLATFORM,
    "requests.facets_all": PLATFORM,
    "requests.export_all": PLATFORM,
    "usage.get_all": PLATFORM,
    "audit.list": ADMINS,
    "audit.list_all": PLATFORM,
    "audit.verify": PLATFORM,
    "conversations.list": ADMINS,
    "conversations.get": ADMINS,
    "conversations.messages": ADMINS,
    "conversations.export": ADMINS,
    "conversations.delete": ADMINS,
    "conversations.delete_all": ADMINS,
}
# Operations without a key: why each is open stands at its declaration.
PUBLIC = ("bootstrap.create",)

# A good body for each operation that takes one.
BODIES: dict[str, object] = {
    "workspaces.create": {"id": "fresh", "name": "Fresh"},
    "workspaces.update": {"settings": {"max_tokens": 7}},
    "keys.create": {"name": "fresh"},
    "keys.update": {"name": "renamed"},
    "keys.rotate": {"grace_seconds": 60},
    "upstreams.create": {"name": "fresh", "base_url": "https://api.example.com/v1", "api_key": "sk-x"},
    "upstreams.update": {"weight": 3},
    "assistants.create": {"name": "fresh", "spec": {"model": ["spare/m"]}},
    "assistants.update": {"spec": {"temperature": 0.5}},
    "assistants.roll_back": {"version": 1},
    "users.create": {"login": "fresh@example.com"},
    "users.update": {"disabled": True},
    "members.create": {"login": "fresh@example.com", "role": "viewer"},
    "members.update": {"role": "viewer"},
    "conversations.delete_all": {"key": "key_0000000000000000000000000000"},
    "bootstrap.create": {"token": "sg-bootstrap-guessed"},
}
