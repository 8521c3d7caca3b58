"""The page and the HTTP API, with Gradio. Both only read job folders and write requests into them."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from diff_v2m.common.errors import InputError
from diff_v2m.studio.actions import Actions

FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the system: nothing is downloaded
HEAD = '<link rel="stylesheet" href="/studio/studio.css">'
START = "import('/studio/studio.js').then((studio) => studio.start(element, server));"
TITLE = "Diff-V2M studio"


def build_page(actions: Actions, most_bytes: int) -> gr.Blocks:
    """The page, and the named functions of the API."""

    def uploaded(paths: list[str]) -> None:
        for path in paths or ():
            try:
                actions.add(Path(path), Path(path).name)
            except InputError as error:
                gr.Warning(str(error), title="Not taken", duration=20)

    def asked(request: dict) -> dict:  # by the page's own component, which shows refusals itself
        return actions.ask(request)

    def add(video: str) -> str:
        """Upload a video. Returns the id of its job."""
        try:
            return actions.add(Path(video), Path(video).name).id
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def ask(request: dict) -> dict:
        """Ask for something: {"do": "compose", "id": …, "settings": {…}} and so on, see docs/studio.md."""
        answer = actions.ask(request)
        if "error" in answer:
            raise gr.Error(answer["error"], print_exception=False)
        return answer

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        file = gr.File(
            label=f"Videos, up to {most_bytes >> 20} MB each",
            file_count="multiple",
            elem_id="upload",
            height=120,
        )
        gr.HTML(
            html_template="<div class='studio'></div>",
            js_on_load=START,
            apply_default_css=False,
            server_functions=[asked],
        )
        file.upload(uploaded, file, None, api_visibility="private", show_progress="hidden").then(
            lambda: None, None, file, api_visibility="private", show_progress="hidden"
        )
        hidden = gr.Button(visible=False)
        hidden.click(add, gr.File(visible=False), gr.Textbox(visible=False), api_name="add")
        hidden.click(ask, gr.JSON(visible=False), gr.JSON(visible=False), api_name="ask")
    return page


def theme() -> gr.themes.Base:
    return gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO)


def mount(app: FastAPI, actions: Actions, most_bytes: int) -> FastAPI:
    """Add page and API to the application. No share link, no run history, no server-side rendering."""
    page = build_page(actions, most_bytes)
    page.queue(default_concurrency_limit=4)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=most_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        head=HEAD,
        allowed_paths=[],
    )
