"""The key, the settings, and the warnings of the frameworks that are not ours to mend."""

API_KEY = "sk-agents-test-key-0123456789abcdef01"
SETTINGS = """
[[upstreams]]
name = "demo"
base_url = "{demo}"
models = ["demo-fast", "demo-thinking-fast"]
"""
# Their clients leave connections to the garbage collector.
WARNINGS = (
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
