"""Looks at the network: the port to listen on, and the image service."""

import http.client
import socket

import trio

from imagestore.actors.imageservice import CannotReach, locate
from imagestore.config import Config
from imagestore.doctor.finding import Finding, fine, note, problem
from imagestore.errors import ImageStoreError
from imagestore.serviceaddress import parse_service

ASK_SECONDS = 5.0


def look_at_port(config: Config) -> Finding:
    """Whether the port can be listened on; a store that answers there is what one wants, too."""
    place = f"{config.host}:{config.port}"
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
    except OSError as error:
        if _is_store(config.host, config.port):
            return fine("port", f"{place}: a store serves there")
        return problem("port", f"{place}: {error.strerror}", f"ss -ltnp 'sport = :{config.port}'")
    return fine("port", f"{place} is free")


def _is_store(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def look_at_image_service(config: Config) -> Finding:
    """Whether something answers where images are fetched from; a store does without."""
    service_option = "--image-service [https://]HOST[:PORT]"
    mend = f"imagestore init {service_option} --force, or imagestore image pull ADDRESS --as ID"
    try:
        service = trio.run(locate, parse_service(config.image_service))
        port = service.port
        socket.create_connection((service.host, port or 0), timeout=ASK_SECONDS).close()
    except (ImageStoreError, CannotReach) as error:
        return note("image service", str(error), mend)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return note("image service", f"{config.image_service} does not answer: {reason}", mend)
    return fine("image service", f"{service} answers")
