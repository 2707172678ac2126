"""URLs of models on a server."""

import dataclasses
import re
import urllib.parse

from vae_bss_tf.errors import ConfigError

_PATHS = {
    "http": re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,18})|/labels/([^/:]+))?/?"),
    "grpc": re.compile(r"/([^/:]+)(?:/versions/(\d{1,18})|/labels/([^/:]+))?/?"),
}
_LABEL = r"[^\s.\x00-\x1f]{1,63}"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_FORMS = "http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME, with /versions/NUMBER or /labels/LABEL after it"


@dataclasses.dataclass(frozen=True)
class Address:
    """A model on a server.

    Attributes:
        url: As the user gave it.
        scheme: "http" or "grpc".
        host: Name or address.
        port: TCP port.
        name: The model's name.
        version: Its version; None for the one of `label`, or the latest.
        label: Label of a version; None for none.
    """

    url: str
    scheme: str
    host: str
    port: int
    name: str
    version: int | None
    label: str | None

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Takes a URL apart.

        Raises:
            ConfigError: It is none of the known forms.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"{url} is no URL of a model ({error}); give {_FORMS}.") from error
        if parts.scheme not in _PATHS:
            raise ConfigError(f"{url} begins with {parts.scheme}://, which is not known; give {_FORMS}.")
        if host is None or port is None or parts.username is not None or not _HOST.fullmatch(host):
            raise ConfigError(f"{url} does not say HOST:PORT; give {_FORMS}.")
        found = _PATHS[parts.scheme].fullmatch(parts.path)
        if found is None or parts.query or parts.fragment:
            raise ConfigError(f"{url} names no model; give {_FORMS}.")
        name, version, label = (None if part is None else urllib.parse.unquote(part) for part in found.groups())
        assert name is not None
        return cls(url, parts.scheme, host, port, name, None if version is None else int(version), label)

    @property
    def rest_path(self) -> str:
        """The model's path in the REST API, quoted."""
        path = f"/v1/models/{urllib.parse.quote(self.name, safe='')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{urllib.parse.quote(self.label, safe='')}"
