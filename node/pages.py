"""Pages for people, in Chinese and English: a record, what went wrong, and the form to ask."""

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from html import escape
from typing import Final
from urllib.parse import quote

from node.http_exchange import HTML, Headers, Reply
from resolver.handle_json import dump
from resolver.record import HandleValue
from resolver.redirect_target import redirect_target
from resolver.value_json import data_to_json

_SHANGHAI: Final = timezone(timedelta(hours=8))
# Nothing is loaded from anywhere, and no script runs: values are other people's text.
_SAFETY: Final[Headers] = [
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        b"base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"Accept-Language"),
]
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{border:1px solid #ccc;padding:.4rem .6rem;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere}th{background:#f2f5f9}input{font:inherit;padding:.3rem}"
    ".stale{background:#fff3cd;padding:.5rem}"
)
_TEXTS: Final = {
    "title": ("标识解析", "Identifier resolution"),
    "index": ("索引", "Index"),
    "type": ("类型", "Type"),
    "data": ("数据", "Data"),
    "time": ("更新时间（北京时间）", "Changed (Asia/Shanghai)"),
    "none": ("该标识没有可公开的数据。", "This identifier has no public values of this kind."),
    "stale": (
        "注册库暂时不可用，以下为最近一次已知的数据。",
        "The registry is away; this is the last known record.",
    ),
    "ask": ("请输入工业互联网标识：", "Identifier:"),
    "resolve": ("解析", "Resolve"),
    "not_found": ("标识不存在", "Not found"),
    "not_found_text": ("本节点没有登记此标识。", "This identifier is not registered here."),
    "refused": ("无法解析", "Cannot be resolved"),
    "not_responsible_text": (
        "本节点不负责该标识的前缀，或该前缀已停用。",
        "This node does not serve the prefix of this identifier, or it is suspended.",
    ),
    "invalid_text": ("这不是有效的标识。", "This is not a valid identifier."),
    "parameter_text": ("请求参数无效。", "A parameter of this request is not valid."),
    "away_text": (
        "暂时无法得知，请稍后重试。",
        "The answer cannot be known right now: please try again in a moment.",
    ),
    "rate_text": (
        "请求过于频繁，请稍后重试。",
        "Too many requests: please try again in a moment.",
    ),
    "busy_text": (
        "节点繁忙，请稍后重试。",
        "The node is busy: please try again in a moment.",
    ),
    "key_text": ("接口密钥无效或已吊销。", "The API key is unknown or revoked."),
}


def language_of(accept_language: str | None) -> str:
    """`zh` or `en`: the first of the two that the reader's browser names."""
    for part in (accept_language or "").lower().split(",")[:20]:
        tag = part.partition(";")[0].strip()
        if tag.startswith(("zh", "en")):
            return tag[:2]
    return "en"


def record_page(
    text: str, values: Iterable[HandleValue], language: str, *, is_stale: bool = False
) -> Reply:
    """The public values of an identifier as a table."""
    rows = "".join(_row(value) for value in values)
    head = "".join(f"<th>{_say(name, language)}</th>" for name in ("index", "type", "data", "time"))
    notice = f'<p class="stale">{_say("stale", language)}</p>' if is_stale else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    content = table if rows else f"<p>{_say('none', language)}</p>"
    return _page(200, text, f"<h1>{escape(text)}</h1>{notice}{content}", language)


def problem_page(status: int, title: str, message: str, text: str, language: str) -> Reply:
    """Why there is no answer; `title` and `message` name texts of this file."""
    shown = escape(text.encode("utf-8", "replace").decode())
    name = _say(title, language)
    body = f"<h1>{name}</h1><p>{_say(message, language)}</p><p><code>{shown}</code></p>"
    return _page(status, name, body, language)


def form_page(language: str) -> Reply:
    """The page that asks which identifier to resolve."""
    form = (
        f'<h1>{_say("title", language)}</h1><form action="/" method="post">'
        f'<label>{_say("ask", language)} <input name="hdl" size="48" autofocus></label> '
        f"<button>{_say('resolve', language)}</button></form>"
    )
    return _page(200, _say("title", language), form, language)


def redirect_page(location: str, shown: str) -> bytes:
    """The body of a redirect, as the reference proxy sends it."""
    return (
        "<html><head><title>Handle Redirect</title></head>\n"
        f'<body><a href="{escape(location)}">{escape(shown)}</a></body></html>'
    ).encode()


def identifier_path(text: str) -> str:
    """The path under which this node resolves an identifier."""
    # Two slashes at the start would name another host.
    start, rest = ("/%2F", text[1:]) if text.startswith("/") else ("/", text)
    return start + quote(rest, safe="/:;,@!$&'()*+=~-._")


def _say(name: str, language: str) -> str:
    return _TEXTS[name][0 if language == "zh" else 1]


def _row(value: HandleValue) -> str:
    cells = (escape(str(value.index)), escape(value.type), _shown(value), _time(value.timestamp_s))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _shown(value: HandleValue) -> str:
    data = data_to_json(value.type, value.data)
    content = data["value"]
    text = content if isinstance(content, str) else dump(content).decode()
    target = redirect_target(text) if data["format"] == "string" else None
    shown = escape(text)
    return shown if target is None else f'<a href="{escape(target)}" rel="nofollow">{shown}</a>'


def _time(timestamp_s: int) -> str:
    return datetime.fromtimestamp(timestamp_s, _SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


def _page(status: int, title: str, content: str, language: str) -> Reply:
    body = (
        f'<!DOCTYPE html><html lang="{"zh-CN" if language == "zh" else "en"}"><head>'
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{content}</body></html>"
    )
    return Reply(status, body.encode("utf-8", "replace"), HTML, list(_SAFETY))
