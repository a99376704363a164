import base64
import ipaddress
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import settings
from hookline.core.errors import SettingsInvalid
from hookline.core.mail import MailServer, Originator
from hookline.settings import TABLE, Settings, load

KEYS = [bytes([n]) * 32 for n in (1, 2)]
KEY_TEXTS = [base64.b64encode(key).decode() for key in KEYS]


def faults_of(environ, config=None, options=None):
    with pytest.raises(SettingsInvalid) as caught:
        load(environ, config, options)
    return {fault.field: fault.message for fault in caught.value.faults}


def written(folder: Path, text: str) -> Path:
    path = folder / "hookline.toml"
    path.write_text(text)
    return path


def test_defaults_are_safe_and_local():
    defaults = load({})
    assert defaults == Settings()
    assert (defaults.host, defaults.port, defaults.role) == ("127.0.0.1", 8480, "all")
    assert defaults.database_url == "sqlite:///hookline-data/hookline.db"
    assert defaults.allow_http is False
    assert defaults.allow_networks == ()
    assert (defaults.max_event_bytes, defaults.lease_seconds) == (1 << 20, 10.0)


def test_the_database_follows_the_data_folder():
    assert load({"HOOKLINE_DATA_DIR": "/srv/h"}).database_url == "sqlite:////srv/h/hookline.db"


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("HOOKLINE_PORT", " 9000 ", "port", 9000),
        ("HOOKLINE_SHUTDOWN_GRACE", "1.5m", "shutdown_grace", 90.0),
        ("HOOKLINE_SHUTDOWN_GRACE", "250ms", "shutdown_grace", 0.25),
        ("HOOKLINE_LEASE_SECONDS", "20", "lease_seconds", 20.0),
        ("HOOKLINE_MAX_EVENT_BYTES", "512KiB", "max_event_bytes", 1 << 19),
        ("HOOKLINE_MAX_EVENT_BYTES", "2 MB", "max_event_bytes", 2_000_000),
        ("HOOKLINE_MAX_EVENT_BYTES", "4096", "max_event_bytes", 4096),
        ("HOOKLINE_HTTP2", "Yes", "http2", True),
        ("HOOKLINE_METRICS", "off", "metrics", "off"),
        ("HOOKLINE_ROLE", "Delivery", "role", "delivery"),
        (
            "HOOKLINE_ALLOW_NETWORKS",
            "127.0.0.0/8, ::1",
            "allow_networks",
            (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        ),
        ("HOOKLINE_MASTER_KEY", ",".join(KEY_TEXTS), "master_key", tuple(KEYS)),
        ("HOOKLINE_MASTER_KEY", KEY_TEXTS[0].rstrip("="), "master_key", (KEYS[0],)),
        ("HOOKLINE_DATABASE_URL", "postgresql://h@db/h", "database_url", "postgresql://h@db/h"),
        (
            "HOOKLINE_DATABASE_REPLICA_URL",
            "postgresql://h:p@[::1]:1,b:2,c/h?x=y",
            "database_replica_url",
            "postgresql://h:p@[::1]:1,b:2,c/h?x=y",
        ),
        ("HOOKLINE_PROXY", "", "proxy", ""),
        ("HOOKLINE_MAIL_INTERVAL", "1h", "mail_interval", 3600.0),
        (
            "HOOKLINE_SMTP_FROM",
            "Shop <hooks@shop.example>",
            "smtp_from",
            Originator("Shop", "hooks@shop.example"),
        ),
    ],
)
def test_values_of_the_environment(variable, text, name, value):
    assert getattr(load({variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HOOKLINE_PORT", "65536"),
        ("HOOKLINE_PORT", "http"),
        ("HOOKLINE_SHUTDOWN_GRACE", "5 minutes"),
        ("HOOKLINE_SHUTDOWN_GRACE", "-5s"),
        ("HOOKLINE_LEASE_SECONDS", "1h"),
        ("HOOKLINE_MAX_EVENT_BYTES", "1mib"),
        ("HOOKLINE_MAX_EVENT_BYTES", "1GiB"),
        ("HOOKLINE_HTTP2", "maybe"),
        ("HOOKLINE_ROLE", "worker"),
        ("HOOKLINE_ALLOW_NETWORKS", "127.0.0.1/8"),
        ("HOOKLINE_DATABASE_URL", "mysql://x/y"),
        ("HOOKLINE_DATABASE_URL", "sqlite://"),
        ("HOOKLINE_DATABASE_URL", "postgresql://h@[::1/h"),
        ("HOOKLINE_DATABASE_URL", "postgresql://h@db:port/h"),
        ("HOOKLINE_DATABASE_REPLICA_URL", "postgresql://h@one:5432,two:x/h"),
        ("HOOKLINE_CA_FILE", "/nowhere/ca.pem"),
        ("HOOKLINE_PROXY", "localhost:3128"),
        ("HOOKLINE_DOH_URL", "http://192.0.2.1/dns-query"),
        ("HOOKLINE_USER_AGENT", "a\r\nX: y"),
        ("HOOKLINE_RETENTION_BODIES_DAYS", "0"),
        ("HOOKLINE_SMTP_URL", "mail.example:587"),
        ("HOOKLINE_SMTP_FROM", "Shop"),
        ("HOOKLINE_MAIL_INTERVAL", "2d"),
    ],
)
def test_a_bad_value_names_setting_value_and_what_is_accepted(variable, text):
    (fault,) = faults_of({variable: text}).items()
    kind = TABLE[variable.removeprefix("HOOKLINE_").lower()].kind
    assert fault[0] == variable
    assert fault[1].endswith(f"accepted: {kind.accepts}")
    assert text in fault[1] or "this value" in fault[1] or "\\r\\n" in fault[1]


@pytest.mark.parametrize("text", [KEY_TEXTS[0][:-8], "not base64!", "x" * 32])
def test_a_secret_is_never_repeated(text):
    (message,) = faults_of({"HOOKLINE_MASTER_KEY": text}).values()
    assert text not in message
    assert "hunter2-hunter2-hunter2" not in repr(load({"HOOKLINE_OPERATOR_KEY": "hunter2-hunter2-hunter2"}))


def test_all_faults_are_told_at_once(tmp_path):
    path = written(tmp_path, 'prot = 1\nport = "x"\nhost = [{a = 1}]\n')
    faults = faults_of({"HOOKLINE_ROLE": "x", "HOOKLINE_MAX_INFLIGHT": "5"}, path, {"http2": "x"})
    assert faults.keys() == {
        f"prot in {path}",
        f"port in {path}",
        f"host in {path}",
        "HOOKLINE_ROLE",
        "HOOKLINE_MAX_INFLIGHT",
        "--http2",
    }
    assert "did you mean port?" in faults[f"prot in {path}"]
    assert "did you mean HOOKLINE_MAX_IN_FLIGHT?" in faults["HOOKLINE_MAX_INFLIGHT"]


def test_settings_that_contradict_each_other():
    assert "HOOKLINE_MAX_EVENT_BYTES" in faults_of(
        {"HOOKLINE_MAX_EVENT_BYTES": "2MiB", "HOOKLINE_MAX_BATCH_BYTES": "1MiB"}
    )


def test_a_mail_server_needs_an_address_to_send_from():
    url = {"HOOKLINE_SMTP_URL": "smtp://mailer:hunter2@mail.example"}
    assert faults_of(url).keys() == {"HOOKLINE_SMTP_FROM"}
    given_both = load({**url, "HOOKLINE_SMTP_FROM": "hooks@shop.example"})
    assert given_both.smtp_url == MailServer("mail.example", 587, False, "required", "mailer", "hunter2")
    assert "hunter2" not in repr(given_both)
    broken = faults_of({"HOOKLINE_SMTP_URL": "smtp://mailer:hunter2@mail.example:x"})
    assert "hunter2" not in str(broken)


def test_options_win_over_the_environment_and_it_over_the_file(tmp_path):
    path = written(
        tmp_path, 'port = 1\nhost = "a"\nrole = "api"\nhttp2 = true\nallow_networks = ["10.0.0.0/8"]\n'
    )
    got = load(
        {"HOOKLINE_CONFIG": str(path), "HOOKLINE_PORT": "2", "HOOKLINE_HOST": "b"}, None, {"port": "3"}
    )
    assert (got.port, got.host, got.role, got.http2) == (3, "b", "api", True)
    assert got.allow_networks == (ipaddress.ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(("text", "told"), [("port = ", "TOML"), (None, "cannot be read")])
def test_a_file_that_cannot_be_used(tmp_path, text, told):
    path = tmp_path / "hookline.toml"
    if text is not None:
        path.write_text(text)
    assert told in faults_of({}, path)[str(path)]


def test_what_kubernetes_adds_for_a_service_is_no_fault():
    added = {
        "HOOKLINE_SERVICE_HOST": "10.0.0.1",
        "HOOKLINE_SERVICE_PORT_HTTP": "80",
        "HOOKLINE_PORT": "tcp://10.0.0.1:80",
        "HOOKLINE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "HOOKLINE_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(added) == Settings()


def test_names_of_the_client_are_no_faults():
    assert load({"HOOKLINE_URL": "http://127.0.0.1:1", "HOOKLINE_KEY": "k", "PATH": "/bin"}) == Settings()


def test_a_name_in_the_wrong_case_is_told():
    assert "did you mean HOOKLINE_PORT?" in faults_of({"HOOKLINE_port": "1"})["HOOKLINE_port"]


@given(st.text(max_size=40), st.sampled_from(sorted(TABLE)))
def test_any_text_is_read_or_told(text, name):
    try:
        load({}, None, {name: text})
    except SettingsInvalid as error:
        assert error.faults  # noqa: PT017 - both ends are right; hypothesis tells which text came to neither


def test_keys_are_made_once_and_only_for_the_owner(tmp_path):
    chosen = Settings(data_dir=tmp_path / "data")
    made = settings.operator_key(chosen, lambda: "made-by-the-first-start")
    again = settings.operator_key(chosen, lambda: "another")
    (master,) = settings.master_keys(chosen)
    assert made == again == "made-by-the-first-start"
    assert settings.master_keys(chosen) == (master,)
    assert len(master) == 32
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in chosen.data_dir.iterdir()}
    assert modes == {"operator.key": 0o600, "master.key": 0o600}


def test_processes_that_start_together_agree_on_the_keys(tmp_path):
    chosen = Settings(data_dir=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: settings.master_keys(chosen), range(32)))
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


def test_given_keys_make_no_files(tmp_path):
    chosen = Settings(data_dir=tmp_path / "none", operator_key="k" * 20, master_key=tuple(KEYS))
    assert settings.operator_key(chosen, str) == "k" * 20
    assert settings.master_keys(chosen) == tuple(KEYS)
    assert not chosen.data_dir.exists()


def test_a_damaged_key_file_is_told(tmp_path):
    (tmp_path / "master.key").write_text("half")
    with pytest.raises(SettingsInvalid) as caught:
        settings.master_keys(Settings(data_dir=tmp_path))
    assert "master.key" in caught.value.faults[0].field


def test_a_catalogue_folder_that_is_named_must_exist(tmp_path):
    assert load({}).catalogue_dir is None
    assert load({"HOOKLINE_CATALOGUE_DIR": str(tmp_path)}).catalogue_dir == tmp_path
    (tmp_path / "file").write_text("")
    for wrong in ("none", "file"):
        faults = faults_of({"HOOKLINE_CATALOGUE_DIR": str(tmp_path / wrong)})
        assert "the path of a folder that exists" in faults["HOOKLINE_CATALOGUE_DIR"]
