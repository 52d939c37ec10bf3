"""A stand-in for W&B's servers at their HTTP edge: it answers the client's questions and keeps what it was told."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from broken_server import Handler, served
from wandb.sdk.lib import wbauth

from search.trials.wandb_run import end_service

KEY = "0" * 40
"""Of the form of an API key."""

ENTITY = {"id": "e", "name": "me"}
PROJECT = {"id": "p", "internalId": "1", "name": "cuarzo", "entity": ENTITY, "entityName": "me"}


class WandbServer:
    """What the client said: GraphQL operations with their variables, the other paths it wrote to, runs' streams."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.paths: list[str] = []
        self.streamed: list[dict[str, Any]] = []

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """The variables of each request of an operation."""
        return [variables for name, variables in self.operations if name == operation]

    def summaries(self) -> list[dict[str, Any]]:
        """The runs' summaries as they were streamed."""
        return [json.loads(content) for said in self.streamed
                for content in said.get("files", {}).get("wandb-summary.json", {}).get("content", [])]

    def answer(self, handler: Handler) -> None:
        """Answer a request."""
        if handler.path != "/graphql":
            self.paths.append(handler.path)
            if handler.path.endswith("/file_stream"):
                self.streamed.append(json.loads(handler.body))
            return handler.send(200, b"{}", Content_Type="application/json")
        request = json.loads(handler.body)
        match = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        assert match, request["query"]
        variables = request.get("variables") or {}
        self.operations.append((match[1], variables))
        content = json.dumps({"data": self._data(match[1], variables)}).encode()
        return handler.send(200, content, Content_Type="application/json")

    def _data(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name")
        match operation:
            case "UpsertBucket":
                return {"upsertBucket": {"inserted": True, "bucket": {
                    "id": name, "name": name, "displayName": name, "config": "{}", "project": PROJECT}}}
            case "CreateRunFiles":
                files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in variables["files"]]
                return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
            case "UpsertView2" | "upsertView":
                view = {"id": variables.get("id") or f"id of {variables['type']}", "project": PROJECT} | {
                    key: variables[key] for key in ("type", "name", "displayName", "description", "spec")}
                return {"upsertView": {"inserted": True, "view": view}}
            case "GetProjects":
                return {"models": {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}}
            case "CreateArtifact":  # as if it had the content already, so that nothing is uploaded
                return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": {
                    "id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}}}}
            case "ArtifactByID":
                return {"artifact": self._artifact()}
            case "RecordArtifactUse" | "UseArtifact":
                return {"useArtifact": {"artifact": {"id": "a"}}}
        return {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
                "project": PROJECT | {"artifact": None}}

    def _artifact(self) -> dict[str, Any]:
        said = self.asked("CreateArtifact")[-1]["input"]
        sequence = {"__typename": "ArtifactSequence", "name": said["artifactCollectionName"], "project": PROJECT}
        aliases = [{"id": "x", "alias": alias["alias"], "artifactCollection": sequence} for alias in said["aliases"]]
        return {"__typename": "Artifact", "id": "a", "artifactSequence": sequence, "versionIndex": 0,
                "artifactType": {"name": said["artifactTypeName"]}, "description": said["description"],
                "metadata": said["metadata"], "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [],
                "historyStep": None, "state": "COMMITTED", "size": 1, "digest": said["digest"], "commitHash": "c",
                "digestAlgorithm": said["digestAlgorithm"], "fileCount": 1, "createdAt": "2026-01-01T00:00:00Z",
                "updatedAt": None, "aliases": aliases}


@contextmanager
def wandb_served() -> Iterator[WandbServer]:
    """The server, for the block."""
    with served() as server:
        client = WandbServer(server.url)
        server.always = client.answer
        yield client
        end_service()


def sign_in(monkeypatch: pytest.MonkeyPatch, home: Path, url: str = "http://127.0.0.1:9",
            key: str | None = KEY) -> None:
    """Have W&B's client talk to this address alone, with this key or none; not with a person's own."""
    end_service()  # first: the address of its process is not to come back when the test is over
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": str(home), "NETRC": str(home / "netrc"), "WANDB_BASE_URL": url, "WANDB_API_KEY": key,
                        "WANDB_HTTP_TIMEOUT": "1", "WANDB_CONFIG_DIR": str(home)}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    wbauth.unauthenticate_session(update_settings=False)


def offline_runs(folder: Path, name: str) -> list[Path]:
    return sorted((folder / "wandb").glob(f"offline-run-*/run-*-{name}.wandb"))


def read(path: Path, *flags: str) -> str:
    return subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--json", *flags, str(path)],
                          capture_output=True, text=True, timeout=60, check=True).stdout


def records(path: Path, kind: str) -> list[dict[str, Any]]:
    """The records of a kind that an offline run left on disk."""
    lines = [json.loads(line) for line in read(path).splitlines()]
    return [line[kind] for line in lines if line["type"] == kind]
