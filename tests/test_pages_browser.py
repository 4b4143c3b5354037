"""The pages in a real browser: what a person sees, and that other people's text never runs."""

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conftest import RunningNode

pytestmark = pytest.mark.debian

PREFIX = "88.608.1001"
# Nothing of the browser's own leaves this machine.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def dom(profile: Path, url: str, language: str = "en") -> str:
    """The document after the browser has read the page and run whatever runs."""
    words = ["chromium", *FLAGS, f"--user-data-dir={profile}", f"--accept-lang={language}"]
    done = subprocess.run(
        [*words, "--dump-dom", url], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def put(node: RunningNode, suffix: str, text: str) -> str:
    url = f"{node.url}/api/handles/{PREFIX}/{suffix}"
    headers = {"Authorization": f"Bearer {node.operator_key}"}
    value = {"index": 1, "type": "NAME", "data": text}
    assert httpx.put(url, json=[value], headers=headers).status_code in (200, 201)
    return f"{node.url}/{PREFIX}/{suffix}"


@pytest.mark.parametrize(("language", "said"), [("en", "Changed"), ("zh-CN", "更新时间")])
def test_a_record_is_a_readable_table(
    node: RunningNode, tmp_path: Path, language: str, said: str
) -> None:
    page = dom(tmp_path, put(node, "PAGE-1", "轴承 6204-2RS"), language)
    assert "<td>轴承 6204-2RS</td>" in page
    assert said in page


def test_a_script_in_a_value_is_shown_and_does_not_run(node: RunningNode, tmp_path: Path) -> None:
    hostile = '<script>document.title="owned"</script><img src=x onerror="document.title=1">'
    page = dom(tmp_path, put(node, "PAGE-2", hostile))
    assert f"<title>{PREFIX}/PAGE-2</title>" in page
    assert "&lt;script&gt;" in page


def test_the_first_page_asks_for_an_identifier(node: RunningNode, tmp_path: Path) -> None:
    page = dom(tmp_path, f"{node.url}/", "zh-CN")
    assert 'name="hdl"' in page
    assert "标识解析" in page
