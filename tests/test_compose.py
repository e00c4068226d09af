"""compose.yaml, as far as it can be checked without Docker: what it says, and its health checks."""

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab
from lab.chapters import PORTS, folder, read_procfile

from .conftest import ROOT

CHAPTER = folder("05")
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (CHAPTER / "Dockerfile").read_text()
SECRETS = {"REDIS_PASSWORD", "FLOWER_BASIC_AUTH"}
VARIABLE = re.compile(r"(?<!\$)(?:\$\$)*\$(?!\$)(\{(\w+)(.*?)\}|\w*)")
"""What Compose puts in from outside: a $ that is not doubled."""


def shell(service: str) -> str:
    """The command line that the service's shell reads."""
    (command,) = SERVICES[service]["command"]
    return str(command).replace("$$", "$")


def mounts(service: str) -> dict[str, str]:
    """The named volumes of a service: where each lies, by its name."""
    return dict(volume.split(":") for volume in SERVICES[service].get("volumes", []))


# --- What runs ------------------------------------------------------------------------


def test_the_services_are_the_processes_of_the_procfile() -> None:
    assert set(SERVICES) == set(read_procfile(CHAPTER))


@pytest.mark.parametrize("service", SERVICES)
def test_a_command_is_that_of_the_procfile_to_the_letter(service: str) -> None:
    assert SERVICES[service]["entrypoint"] == ["/bin/sh", "-c"]
    assert shell(service) == f"exec {read_procfile(CHAPTER)[service]}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_shell_expands_the_command_and_not_compose(service: str) -> None:
    assert not VARIABLE.search(SERVICES[service]["command"][0])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_comes_back_and_is_never_one_of_a_kind_by_name(service: str) -> None:
    """A fixed name or host name would make `--scale` fail, or two workers one to Celery."""
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert not {"container_name", "hostname", "network_mode"} & set(SERVICES[service])


def test_a_service_waits_only_for_those_that_tell_when_they_are_well() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[name]
    waits = {name: set(service.get("depends_on", ())) for name, service in SERVICES.items()}
    needing = {name for name in waits if "redis" in waits[name]}
    assert needing == set(SERVICES) - {"redis", "mailserver"}


# --- What others can reach, and what they would have to know --------------------------


def test_three_pages_are_published_to_this_machine_and_nothing_else() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    pages = {"web": PORTS["PORT"], "flower": PORTS["FLOWER_PORT"], "mailserver": 8026}
    assert published == {name: [f"127.0.0.1:{port}:{port}"] for name, port in pages.items()}


def test_every_secret_must_be_given_and_none_is_written_down() -> None:
    found = [(match[2], match[3]) for match in VARIABLE.finditer(TEXT)]
    assert {name for name, _ in found} == SECRETS
    assert all(rest.startswith(":?") for _, rest in found)


def test_a_secret_is_given_to_those_who_need_it() -> None:
    def who_knows(secret: str) -> set[str]:
        return {name for name, service in SERVICES.items() if f"${{{secret}" in str(service)}

    assert who_knows("FLOWER_BASIC_AUTH") == {"flower"}
    assert who_knows("REDIS_PASSWORD") == set(SERVICES) - {"mailserver"}


def test_git_and_docker_pass_the_secrets_by() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    for name in (".env", "05_load_testing/data/redis.conf", ".git/config"):
        assert is_ignored(name), name


# --- What they are told ---------------------------------------------------------------


def variables_of_the_chapter() -> set[str]:
    sources = [path for path in CHAPTER.glob("*.py") if not path.name.startswith("test_")]
    text = "\n".join(path.read_text() for path in [*sources, CHAPTER / "Procfile"])
    return {
        name
        for pattern in (r'environ(?:\.get\(|\[)"(\w+)"', r"\$\{(\w+):-")
        for name in re.findall(pattern, text)
    }


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_one_that_the_chapter_reads(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= variables_of_the_chapter()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_knows_where_the_others_are(service: str) -> None:
    told = SERVICES[service]["environment"]
    assert told["LISTEN"] == "0.0.0.0"  # noqa: S104
    assert told["DATA"] == "/data"
    if service not in ("redis", "mailserver"):
        assert re.fullmatch(r"redis://:\$\{.*\}@redis:6379/0", told["REDIS_URL"])
    else:
        assert "REDIS_URL" not in told  # or Redis would take itself for somebody else's
    assert (told.get("SMTP_HOST") == "mailserver") == (service == "mail")


# --- What is kept, and what is shared -------------------------------------------------


def test_uploads_are_shared_by_those_who_write_read_and_remove_them() -> None:
    """Web keeps an upload, a report reads it, and `look_after_jobs` runs on the mail worker."""
    sharing = {name for name in SERVICES if mounts(name).get("uploads") == "/data/uploads"}
    assert sharing == {"web", "mail", "report"}


def test_nothing_else_is_shared_so_each_worker_has_metrics_of_its_own() -> None:
    others = [name for service in SERVICES for name in mounts(service) if name != "uploads"]
    assert sorted(others) == sorted(set(others))
    assert set(others) | {"uploads"} == set(COMPOSE["volumes"])
    for worker in ("web", "mail", "report"):
        assert set(mounts(worker)) == {"uploads"}


def test_what_must_survive_lies_on_a_volume() -> None:
    for service in ("redis", "beat", "flower"):
        assert mounts(service) == {service: "/data"}


# --- The image ------------------------------------------------------------------------


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the image: the last line that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parents = [path, *map(str, Path(path).parents)]
        patterns = {pattern, pattern.removeprefix("**/")}
        if any(fnmatch.fnmatchcase(p, each) for p in parents for each in patterns if p != "."):
            ignored = not line.startswith("!")
    return ignored


def test_all_that_the_chapter_is_made_of_gets_into_the_image() -> None:
    made_here = ("data", "node_modules", "__pycache__", ".mypy_cache", ".pytest_cache")
    for path in CHAPTER.rglob("*"):
        if path.is_file() and not any(part in made_here for part in path.parts):
            assert not is_ignored(path.relative_to(ROOT).as_posix()), path
    assert f"COPY {CHAPTER.name} ./\n" in DOCKERFILE
    assert is_ignored("04_monitoring/app.py")


def test_what_is_copied_exists() -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()]
    assert len(sources) >= 4
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


def test_the_image_is_pinned_and_takes_packages_from_the_lock_with_their_hashes() -> None:
    for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+-slim", image), image
    (installed,) = re.findall(r"^RUN sed .*(?:\n    .*)+", DOCKERFILE, re.MULTILINE)
    assert "pip install --no-cache-dir --require-hashes -r uv.txt" in installed
    assert "--constraint requirements.txt" in installed
    assert "--hash=sha256:" in (ROOT / "requirements.txt").read_text()


def test_the_programs_in_it_are_not_root() -> None:
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users == ["postroom"]
    assert "useradd --uid 1000 postroom" in DOCKERFILE
    assert "chown -R postroom /data" in DOCKERFILE


# --- The health checks ----------------------------------------------------------------

PORT_OF = {"web": "PORT", "mail": "MAIL_METRICS_PORT", "report": "REPORT_METRICS_PORT"}
PORT_OF |= {"flower": "FLOWER_PORT", "mailserver": "MAILBOX_PORT"}


def check(chapter: lab.Chapter, service: str) -> int:
    """Run a service's health check beside the chapter, on the port that it has here."""
    how, *command = SERVICES[service]["healthcheck"]["test"]
    assert (how, *command[:2]) == ("CMD", "python", "-c")
    if service in PORT_OF:
        name = PORT_OF[service]
        assert f"127.0.0.1:{PORTS[name]}/" in command[2]
        command[2] = command[2].replace(f":{PORTS[name]}/", f":{chapter.ports[name]}/")
    environment = os.environ | {
        "REDIS_PORT": str(chapter.ports["REDIS_PORT"]),
        "REDIS_PASSWORD": "secret",
    }
    return subprocess.run(
        [sys.executable, *command[1:]],
        cwd=chapter.path,
        env=environment,
        capture_output=True,
        timeout=30,
    ).returncode


def test_a_health_check_tells_who_is_well_and_who_is_not() -> None:
    checked = [name for name, service in SERVICES.items() if "healthcheck" in service]
    assert sorted(checked) == sorted(set(SERVICES) - {"beat"})
    with lab.start("05", REDIS_PASSWORD="secret") as chapter:  # noqa: S106
        assert {name: check(chapter, name) for name in checked} == dict.fromkeys(checked, 0)
        for name in ("mail", "report", "flower", "mailserver"):
            chapter.hurt(name)
        chapter.hurt("redis", "SIGSTOP")  # web lives on, but is not ready
        assert all(check(chapter, name) for name in checked)
