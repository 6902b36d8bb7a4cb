"""What a connection may be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aintandem_agent_sdk.errors import InvalidEndpoint, InvalidSettings
from aintandem_agent_sdk.token import Token

DEFAULT_ENDPOINT = "http://127.0.0.1:8001"


@dataclass(frozen=True)
class Settings:
    """Settings of a `Client`. Times are in seconds."""

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    """Where brokers listen, `http` or `https`. Any node serves every request; the next one is used when one fails."""
    token: Token | None = None
    """Who this client is. Nobody by default, which is enough for `tandem dev`."""
    ca_file: Path | None = None
    """Whose signature on a broker's certificate counts, as PEM, for `https`. By default those that gRPC brings."""
    cert_file: Path | None = None
    """Certificate to show where a broker asks for one, as PEM; with `key_file`."""
    key_file: Path | None = None
    """The private key of that certificate."""
    connect_timeout: float = 5.0
    """How long one attempt to connect may take."""
    request_timeout: float = 30.0
    """How long a call may take, with all its retries. Streams have no limit."""
    attempts: int = 10
    """How often a call is tried while the broker is unavailable, at least 1. The waits in between are 20 ms, doubled up to 1 s."""
    reconnect_limit: float | None = None
    """How long a publisher or a subscription tries to get its stream back, before what waits on it fails. None: for ever."""
    follow_leader: bool = True
    """Go straight to the node that leads a workspace once an answer has named it, and spare a hop."""
    keepalive_interval: float = 10.0
    """Between pings on a connection, sent also when nothing else is."""
    keepalive_timeout: float = 10.0
    """How long a ping may stay unanswered before the connection counts as lost."""
    max_message_bytes: int = 16 << 20
    """Largest request and largest answer."""
    user_agent: str = "aintandem-python/0.1.0"

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise InvalidEndpoint("no endpoint was given; write it like http://127.0.0.1:8001")
        schemes = {split_endpoint(endpoint)[0] for endpoint in self.endpoints}
        if len(schemes) > 1:
            raise InvalidEndpoint("endpoints are all http or all https: a token must not go out in the clear by chance")
        if self.attempts < 1:
            raise InvalidSettings(f"attempts is {self.attempts}, and at least 1")
        if (self.cert_file is None) != (self.key_file is None):
            raise InvalidSettings("cert_file and key_file go together")

    @property
    def is_encrypted(self) -> bool:
        """Whether the endpoints are `https`."""
        return split_endpoint(self.endpoints[0])[0] == "https"


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Scheme and `host:port` of a URL. Raises InvalidEndpoint with what is wrong."""

    def wrong(why: str) -> InvalidEndpoint:
        return InvalidEndpoint(f"{endpoint!r} is not an endpoint: {why}; write it like {DEFAULT_ENDPOINT}")

    if "://" not in endpoint:
        raise wrong("the scheme is missing")
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise wrong(str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise wrong(f"the scheme {parts.scheme} is unknown")
    if not host or any(character.isspace() for character in host):
        raise wrong("the host is missing")
    if parts.path not in ("", "/") or parts.query or parts.username:
        raise wrong("it has more than scheme, host and port")
    host = f"[{host}]" if ":" in host else host
    return parts.scheme, f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"


def endpoints_of(urls: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """A list of URLs, also from one text with commas in between."""
    listed = urls.split(",") if isinstance(urls, str) else list(urls)
    return tuple(url.strip() for url in listed if url.strip())
