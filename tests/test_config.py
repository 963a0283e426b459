"""Settings: who wins, and what a mistake is answered with."""

import os
from pathlib import Path

import pytest

from imagestore.config import Config, PoolAddress, checkout, load, parse_pool
from imagestore.errors import ConfigError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "imagestore.toml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 1\nmax_pending = 1\nnum_fetchers = 1\npool = "dir:/file"\n')
    environment = {"IMAGESTORE_PORT": "2", "IMAGESTORE_MAX_PENDING": "2"}
    config = load({"port": 3, "log_level": None}, environment=environment, file=file)
    assert (config.port, config.max_pending, config.num_fetchers) == (3, 2, 1)
    assert config.pool_address == PoolAddress("dir", "/file")
    assert config.log_level == "warning"


def test_installed_defaults_are_the_originals() -> None:
    config = load({}, environment={})
    assert config.pool == "zfs:mistify"
    assert config.journal == "/var/lib/imagestore/journal"
    assert (config.host, config.port) == ("127.0.0.1", 19999)
    assert config.image_service == "image.services.lochness.local"
    assert config.num_fetchers == os.cpu_count()


def test_a_checkout_keeps_pool_and_journal_beside_the_source(tmp_path: Path) -> None:
    config = load({}, environment={}, base=str(tmp_path))
    assert config.pool == f"dir:{tmp_path}/pool"
    assert config.journal == f"{tmp_path}/journal"


def test_these_tests_run_from_a_checkout() -> None:
    assert checkout() == str(Path(__file__).resolve().parent.parent)


def test_the_originals_keys_are_accepted_in_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path, 'ImageServer = "images.test:81"\nNumFetchers = 7\nMaxPending = 9\nZpool = "tank"\n'
    )
    config = load({}, environment={}, file=file)
    assert (config.image_service, config.num_fetchers, config.max_pending) == ("images.test:81", 7, 9)
    assert config.pool == "zfs:tank"


def test_zero_in_the_originals_file_means_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "NumFetchers = 0\nMaxPending = 0\n")
    config = load({}, environment={}, file=file)
    assert (config.num_fetchers, config.max_pending) == (os.cpu_count(), 256)


def test_the_originals_keys_are_no_environment_names() -> None:
    with pytest.raises(ConfigError, match="there is no setting 'imageserver'") as caught:
        load({}, environment={"IMAGESTORE_IMAGESERVER": "x"})
    assert caught.value.detail == "did you mean 'image_service'?"


@pytest.mark.parametrize(
    ("text", "message", "detail"),
    [
        ("prot = 1", "there is no setting 'prot'", "did you mean 'port'?"),
        ("numfetchers = 1", "there is no setting 'numfetchers'", "did you mean 'num_fetchers'?"),
        ('port = "80"', "port = '80' is not valid", "a whole number from 0 to 65535"),
        ("port = 70000", "port = 70000 is not valid", "a whole number from 0 to 65535"),
        ("port = true", "port = True is not valid", "a whole number from 0 to 65535"),
        ("shutdown_seconds = 0", "shutdown_seconds = 0 is not valid", "a number of seconds over 0"),
        ('log_level = "loud"', "log_level = 'loud' is not valid", "one of debug, error, info, warning"),
        ("allow_unauthenticated = 1", "allow_unauthenticated = 1 is not valid", "true or false"),
        ("pool = 3", "pool = 3 is not valid", "a text in quotes"),
        ('Zpool = "a"\npool = "dir:b"', "Zpool and pool both say what pool is", "give one of them"),
        ("MaxPending = 1\nmax_pending = 2", "MaxPending and max_pending both", "give one of them"),
        ("port = ", "is not TOML", ""),
    ],
)
def test_a_mistake_in_the_file_is_named_with_what_would_be_right(
    tmp_path: Path, text: str, message: str, detail: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load({}, environment={}, file=file)
    assert file in str(caught.value)
    assert message in str(caught.value)
    assert detail in caught.value.detail


def test_a_mistake_in_the_environment_is_named() -> None:
    with pytest.raises(ConfigError, match="the environment: port = 'many' is not valid"):
        load({}, environment={"IMAGESTORE_PORT": "many"})


def test_other_environment_variables_do_not_matter(tmp_path: Path) -> None:
    file = written(tmp_path, "port = 4")
    environment = {"IMAGESTORE_SERVER": "http://x", "IMAGESTORE_CONFIG": file, "HOME": "/"}
    environment |= {"IMAGESTORE_TOKEN_FILE": "x", "IMAGESTORE_CA_FILE": "x"}
    assert load({}, environment=environment).port == 4


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml: No such file"):
        load({}, environment={}, file=str(tmp_path / "none.toml"))


def test_pool_and_zpool_together_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="zpool and pool both say what pool is"):
        load({"zpool": "tank", "pool": "dir:/x"}, environment={})


def test_a_flag_may_replace_the_files_other_spelling(tmp_path: Path) -> None:
    file = written(tmp_path, 'pool = "dir:/x"')
    assert load({"zpool": "tank"}, environment={}, file=file).pool == "zfs:tank"


@pytest.mark.parametrize("text", ["tank", "dir:", "zfs:", "btrfs:x", ""])
def test_a_pool_must_name_its_driver(text: str) -> None:
    with pytest.raises(ConfigError, match="neither dir:PATH nor zfs:NAME"):
        parse_pool(text)


def test_relative_directories_become_absolute() -> None:
    config = load({"pool": "dir:p", "journal": "j", "spool": "s"}, environment={})
    assert config.pool_address.place == str(Path.cwd() / "p")
    assert config.journal == str(Path.cwd() / "j")
    assert config.spool == str(Path.cwd() / "s")


def test_the_journal_may_not_lie_in_its_pool() -> None:
    with pytest.raises(ConfigError, match="lies in the pool"):
        load({"pool": "dir:/srv/p", "journal": "/srv/p/journal"}, environment={})


@pytest.mark.parametrize("key", ["tls_key", "tls_client_ca"])
def test_tls_begins_with_a_certificate(key: str) -> None:
    with pytest.raises(ConfigError, match="of no use without tls_certificate"):
        load({key: "x.pem"}, environment={})
    assert load({key: "x.pem", "tls_certificate": "y.pem"}, environment={}).tls_certificate == "y.pem"


def test_secret_files_may_be_systemds_credentials(tmp_path: Path) -> None:
    place = "${CREDENTIALS_DIRECTORY}"
    file = written(tmp_path, f'tls_certificate = "/c.pem"\ntls_key = "{place}/key"\n')
    config = load({}, environment={"CREDENTIALS_DIRECTORY": "/run/credentials/x"}, file=file)
    assert (config.tls_certificate, config.tls_key) == ("/c.pem", "/run/credentials/x/key")
    with pytest.raises(ConfigError, match=r"tls_key = .* there are no credentials") as caught:
        load({}, environment={}, file=file)
    assert "LoadCredential=" in caught.value.detail


def test_client_roles_are_checked() -> None:
    with pytest.raises(ConfigError, match="tls_client_roles: 'x=root'"):
        load({"tls_client_roles": "x=root"}, environment={})


def test_a_socket_is_a_path_auto_or_none(tmp_path: Path) -> None:
    assert load({}, environment={}).socket == "auto"
    assert load({}, environment={}, base=str(tmp_path)).socket == "none"
    assert load({"socket": "x.sock"}, environment={}).socket == str(Path.cwd() / "x.sock")


@pytest.mark.parametrize("service", ["", "http://images", "user@images", "images:", "images:99999", ":80"])
def test_an_image_service_is_a_host_and_perhaps_a_port(service: str) -> None:
    with pytest.raises(ConfigError, match="image service"):
        load({"image_service": service}, environment={})


@pytest.mark.parametrize(
    "service",
    ["images", "images:80", "192.0.2.7:80", "[2001:db8::7]:80", "2001:db8::7", "https://images:8443"],
)
def test_an_image_service_may_be_any_address(service: str) -> None:
    assert load({"image_service": service}, environment={}).image_service == service


@pytest.mark.parametrize("service", ["images", "192.0.2.7:80", "0.0.0.0:80", "[2001:db8::7]"])
def test_a_token_does_not_leave_the_machine_in_the_clear(service: str) -> None:
    with pytest.raises(ConfigError, match=r"would go to .* in the clear$") as caught:
        load({"image_service": service, "image_service_token": "t"}, environment={})
    assert f'image_service = "https://{service}"' in caught.value.detail
    assert "allow_token_in_clear = true" in caught.value.detail
    for right in ({"image_service": f"https://{service}"}, {"allow_token_in_clear": "true"}):
        flags = {"image_service": service, "image_service_token": "t", **right}
        assert load(flags, environment={}).image_service_token == str(Path.cwd() / "t")


@pytest.mark.parametrize("service", ["localhost", "127.0.0.1:80", "127.8.8.8", "[::1]:80", "::1"])
def test_a_token_may_go_to_a_service_on_the_same_machine(service: str) -> None:
    assert load({"image_service": service, "image_service_token": "t"}, environment={}).image_service_token


def test_an_authority_of_the_image_service_needs_tls() -> None:
    flags = {"image_service": "images:81", "image_service_ca": "ca.pem"}
    with pytest.raises(ConfigError, match="of no use without TLS") as caught:
        load(flags, environment={})
    assert "https://images:81" in caught.value.detail
    flags["image_service"] = "https://images:81"
    assert load(flags, environment={}).image_service_ca == str(Path.cwd() / "ca.pem")


def test_private_sources_are_networks() -> None:
    assert load({"allow_private_sources": "10.1.0.0/16"}, environment={}).allow_private_sources
    with pytest.raises(ConfigError, match="allow_private_sources 'lan' is not none, all or"):
        load({"allow_private_sources": "lan"}, environment={})


def test_a_config_can_be_built_by_hand() -> None:
    config = Config(pool="dir:/p", journal="/j")
    assert config.pool_address == PoolAddress("dir", "/p")
