"""The page and the HTTP API, with Gradio. Both only read job folders and write requests into them."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from diff_v2m.common.errors import InputError
from diff_v2m.studio.actions import Actions

FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the system: nothing is downloaded
HEAD = '<link rel="stylesheet" href="/studio/studio.css">'
START = "import('/studio/studio.js').then((studio) => studio.start(element, server, MOST));"
TITLE = "Diff-V2M studio"


def take_files_only(upload: gr.File) -> gr.File:
    """Refuse an address in place of a file, which Gradio would download."""
    move = upload.async_move_resource_to_block_cache

    async def checked(source: str | Path | None) -> str | None:
        if "://" in str(source):
            raise gr.Error("expected an uploaded file, not an address", print_exception=False)
        return await move(source)

    # On the object: of a class of our own, Gradio would write a .pyi file beside this one.
    upload.async_move_resource_to_block_cache = checked  # type: ignore[method-assign, assignment]
    return upload


def build_page(actions: Actions, most_bytes: int) -> gr.Blocks:
    """The page, and the named functions of the API."""

    def asked(request: dict) -> dict:  # by the page's own component, which shows refusals itself
        return actions.ask(request)

    def add(video: str) -> str:
        """Upload a video. Returns the id of its job."""
        try:
            return actions.jobs.add(Path(video), Path(video).name).id
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def ask(request: dict) -> dict:
        """Ask for something: {"do": "compose", "id": …, "settings": {…}} and so on, see docs/studio.md."""
        answer = actions.ask(request)
        if "error" in answer:
            raise gr.Error(answer["error"], print_exception=False)
        return answer

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(
            html_template="<div class='studio'></div>",
            js_on_load=START.replace("MOST", str(most_bytes)),
            apply_default_css=False,
            server_functions=[asked],
        )
        hidden = gr.Button(visible=False)
        hidden.click(add, take_files_only(gr.File(visible=False)), gr.Textbox(visible=False), api_name="add")
        hidden.click(ask, gr.JSON(visible=False), gr.JSON(visible=False), api_name="ask")
    return page


def theme() -> gr.themes.Base:
    return gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO)


def mount(app: FastAPI, actions: Actions, most_bytes: int) -> FastAPI:
    """Add page and API to the application. No share link, no run history, no server-side rendering."""
    page = build_page(actions, most_bytes)
    page.queue(default_concurrency_limit=4)
    page.has_launched = True  # else Gradio, in an application that it did not start, takes paths from clients
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
