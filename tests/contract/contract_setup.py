"""The key and the settings file of the gateway that the contract tests talk to."""

from scripted import UPSTREAM_KEY

API_KEY = "sk-contract-test-key-0123456789abcdef"
OTHER_KEY = "sk-contract-other-key-0123456789abcde"
KEYS = f"{API_KEY},{OTHER_KEY}"

# After a 429 the gateway leaves that model alone for as long as the upstream asked, so that each test that
# causes one has a model of its own.
LIMITED = tuple(f"limited-{name}" for name in ("error", "ms", "seconds", "quota", "async"))
MODELS = ("scripted", "example/scripted-large", *LIMITED, *(f"node-{name}" for name in LIMITED))

SETTINGS = """
[[upstreams]]
name = "demo"
base_url = "{demo}"
models = ["demo", "demo-fast", "demo-slow", "demo-thinking-fast", "demo-embedding"]

[[upstreams]]
name = "scripted"
base_url = "{scripted}"
api_key = "{upstream_key}"
models = [{models}]

[[upstreams]]
name = "impatient"
base_url = "{scripted}"
api_key = "{upstream_key}"
models = ["scripted-impatient"]
first_event_timeout = 0.5

[[upstreams]]
name = "spare"
base_url = "{scripted}"
api_key = "{upstream_key}"
models = ["spare"]
kind = "openai"
denied_params = ["logit_bias"]
tokenizers = {{ spare = "o200k_base" }}

[[upstreams]]
name = "narrow"
base_url = "{scripted}"
api_key = "{upstream_key}"
models = ["narrow"]
context_lengths = {{ narrow = 1000 }}

[[upstreams]]
name = "native"
base_url = "{scripted}"
api_key = "{upstream_key}"
models = ["native"]
responses = true

[[assistants]]
name = "Helpful one/π v1"
description = "Short answers."
model = ["demo/demo-fast"]
system_prompt = "Be short."
temperature = 0.0

[[assistants]]
name = "locked"
model = ["scripted/scripted", "spare/spare"]
system_prompt = "Only this counts."
temperature = 0.5
top_p = 0.25
max_tokens = 100
locked = ["system_prompt", "temperature"]

[[assistants]]
name = "from-nowhere"
model = ["demo/not-loaded", "demo/demo-fast"]

[[assistants]]
name = "narrow-one"
model = ["narrow/narrow"]
max_tokens = 500

[[assistants]]
name = "remembers"
model = ["scripted/scripted"]
system_prompt = "Be kind."
chat_history = "default_on"

[[assistants]]
name = "remembers when asked"
model = ["scripted/scripted"]
chat_history = "disable_think"
default_thread = false

[[assistants]]
name = "remembers-narrow"
model = ["narrow/narrow"]
chat_history = "default_on"
max_tokens = 100

[[assistants]]
name = "remembers-demo"
model = ["demo/demo-fast"]
chat_history = "default_on"
"""


def settings_file(demo: str, scripted: str) -> str:
    """The settings for these two base URLs."""
    models = ", ".join(f'"{model}"' for model in MODELS)
    return SETTINGS.format(demo=demo, scripted=scripted, upstream_key=UPSTREAM_KEY, models=models)
