// The page: queue, timeline, takes and mix of one video. The server is asked once a second; the page keeps nothing.

import { Composer, FIRST_SEED } from "/studio/composer.js";
import { Mixer } from "/studio/mixer.js";
import { Player } from "/studio/player.js";
import { bestOf, takeCard } from "/studio/takes.js";
import { Timeline, clock, element } from "/studio/timeline.js";
import { Uploads } from "/studio/upload.js";

const EVERY = 1000; // milliseconds between two questions; a hidden page asks less often
const KINDS = { analyse: "reading", compose: "composing", redo: "composing a span", mix: "mixing" };
const FORMATS = { sheet: "Cue sheet (.cues.csv)", resolve: "Resolve (.edl)", cmx3600: "CMX 3600 (.edl)", fcpxml: "Final Cut Pro (.fcpxml)", fcp7: "Premiere (.xml)", reaper: "REAPER (.csv)", srt: "Subtitles (.srt)", vtt: "Subtitles (.vtt)" };

export function start(host, server, most) { // most: bytes of an upload
  new Studio(host.querySelector(".studio"), server, most).run();
}

class Studio {
  constructor(root, server, most) {
    Object.assign(this, { root, server, most, id: sessionStorage.getItem("dv-job"), job: null, A: null, B: null, saving: 0, base: [], keys: 0 });
    this.build();
  }

  // Without a connection Gradio answers with nothing.
  async request(what, values) {
    return (await this.server.asked({ do: what, ...values }).catch(() => null)) ?? { lost: true, error: "No connection to the studio: this was not done." };
  }

  async ask(what, values = {}) {
    const answer = await this.request(what, values);
    if (answer.error) this.say(answer.error, true);
    return answer;
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.className = `dv-message ${bad ? "dv-bad" : ""}`;
    clearTimeout(this.silence);
    if (text) this.silence = setTimeout(() => this.say(""), bad ? 15000 : 5000);
  }

  async run() {
    for (;;) {
      await this.look();
      await new Promise((done) => setTimeout(done, document.hidden ? 5 * EVERY : EVERY));
    }
  }

  async look() {
    const known = this.job?.id === this.id && this.job.timeline;
    const id = this.id;
    const state = await this.request("state", { id, timeline: !known, seen: known ? this.version : null });
    this.lost.hidden = !state.lost; // the work goes on without the page
    if (state.lost || id !== this.id) return;
    if (state.error) return this.say(state.error, true);
    if (!state.job && (id || state.jobs.length)) return this.open(id ? null : state.jobs.at(-1).id);
    this.showQueue(state);
    this.composer.show(state.presets, state.model ?? {});
    if (this.unsaved) this.save();
    this.work.hidden = !state.job;
    if (state.job && known) state.job.timeline = known;
    if (state.job) this.showJob(state.job);
  }

  async open(id) {
    await this.flush();
    if (id !== this.id) {
      Object.assign(this, { job: null, A: null, B: null });
      this.timeline.show(null);
      this.unselect();
    }
    this.id = id;
    if (id) sessionStorage.setItem("dv-job", id);
    else sessionStorage.removeItem("dv-job");
    return this.look();
  }

  // ---------------------------------------------------------------------------------------------------- the parts

  build() {
    const button = (label, onclick, options = {}) => element("button", { type: "button", onclick, ...options }, label);
    this.message = element("div", { class: "dv-message", role: "status", "aria-live": "polite" });
    this.lost = element("div", { class: "dv-lost", role: "alert", hidden: true }, "No connection to the studio. The work goes on, and this page comes back by itself; after an update of the studio, reload it.");
    const uploads = element("div", {});
    new Uploads(uploads, { most: this.most, onadded: (id, isFirst) => isFirst && this.open(id) });
    this.queue = element("div", { class: "dv-queue", role: "list", "aria-label": "Videos" });
    this.title = element("h2", {});
    this.status = element("div", { class: "dv-status", "aria-live": "polite" });
    const tools = element("div", { class: "dv-row dv-right" },
      (this.download = element("a", { class: "dv-button", download: "" }, "Download all")),
      button("Remove…", () => this.remove()));
    const stage = element("div", { class: "dv-stage" });
    this.player = new Player(stage, { ontime: (seconds) => this.timeline.seek(seconds) });
    const board = element("div", { class: "dv-board" });
    this.timeline = new Timeline(board, {
      onchange: () => this.edited(),
      onselect: (selection) => this.selected(selection),
      onseek: (seconds) => this.player.seek(seconds),
    });
    board.addEventListener("keydown", (event) => this.key(event));
    const ask = (action, values) => this.ask(action, values);
    this.composer = new Composer({ ask, oncompose: () => this.compose() });
    this.mixer = new Mixer({
      ask,
      onestimate: (answer) => { this.player.curve = answer; },
    });
    this.from = this.secondsField("Selection from", () => this.typed());
    this.until = this.secondsField("to", () => this.typed());
    this.colors = element("input", { type: "text", value: "navy gold", size: 14, "aria-label": "Colours of the mood" });
    this.redoButton = button("Compose this span again", () => this.redo());
    this.import = element("input", { type: "file", accept: ".csv,.edl,.fcpxml,.xml,.srt,.vtt", class: "dv-hidden", tabindex: -1, "aria-label": "Import cues", onchange: () => this.importCues() });
    this.format = element("select", { "aria-label": "Format of the export" }, ...Object.entries(FORMATS).map(([value, label]) => element("option", { value }, label)));
    const editing = element("div", { class: "dv-row dv-needs" },
      button("+ Hit", () => this.addHit(), { title: "at the playhead (H)" }),
      element("span", { class: "dv-group" }, this.from.label, this.until.label,
        this.colors, button("Mood", () => this.addSpan("mood")),
        button("Silence", () => this.addSpan("silence")), this.redoButton),
      element("span", { class: "dv-group" }, button("−", () => this.timeline.setZoom(this.timeline.zoom / 2), { "aria-label": "Zoom out" }), button("+", () => this.timeline.setZoom(this.timeline.zoom * 2), { "aria-label": "Zoom in" })),
      element("span", { class: "dv-group" }, button("Import…", () => this.import.click()), this.import, this.format, button("Export", () => this.exportCues()),
        button("Undo all edits", () => this.undo())));
    const help = element("details", { class: "dv-help" }, element("summary", {}, "Keys"), element("p", {}, "In the timeline: Space plays, J and L go back and forth by a second, X swaps takes A and B, H adds a hit, I and O begin and end the selection, Escape ends it. On a cue: arrows move it, Shift by a second, Alt changes the length of a span, Delete removes it. On the rhythm: left and right choose a second, up and down change it."));
    this.work = element("section", { class: "dv-work", hidden: true },
      element("div", { class: "dv-row" }, this.title, this.status, tools), stage, board, editing, help, this.composer.section, this.buildTakes(), this.mixer.section);
    this.root.append(uploads, this.lost, this.message, this.queue, this.work);
  }

  secondsField(text, onchange) {
    const input = element("input", { type: "number", min: 0, step: 0.1, onchange });
    return { input, label: element("label", {}, `${text} `, input, " s") };
  }

  buildTakes() {
    this.takes = element("div", { class: "dv-takes" });
    this.noTakes = element("p", { class: "dv-muted" }, "No takes yet. Compose makes some; each follows the cues as they are now.");
    return element("section", { "aria-label": "Takes" }, element("h3", {}, "Takes"), this.noTakes, this.takes);
  }

  // ------------------------------------------------------------------------------------------------------ showing

  showQueue({ jobs, working }) {
    const shown = jobs.map((job) => {
      const task = job.open[0];
      const text = !task ? "" : task.state === "running" && working ? `${KINDS[task.kind]}${task.share < 1 ? ` ${Math.round(100 * task.share)} %` : ": finishing"}` : "waiting";
      const open = element("button", { type: "button", class: "dv-open", "data-id": job.id, "aria-current": job.id === this.id ? "true" : null, onclick: () => this.open(job.id) },
        element("strong", {}, job.name), element("span", {}, clock(job.duration, 0), text ? ` · ${text}` : ""));
      return element("div", { role: "listitem", class: "dv-item" }, open, task ? element("progress", { max: 1, value: task.share ?? 0, "aria-label": `${job.name}: ${text}` }) : null);
    });
    this.replace(this.queue, shown, jobs);
    const current = this.queue.querySelector("[aria-current]");
    if (current && this.scrolled !== this.id) this.queue.scrollLeft = current.offsetLeft - this.queue.offsetLeft;
    this.scrolled = this.id;
  }

  // New children, unless nothing changed; what had the focus keeps it.
  replace(host, children, key) {
    const text = JSON.stringify(key) + this.id + this.A + this.B;
    if (host.shown === text) return;
    host.shown = text;
    const focused = host.contains(document.activeElement) ? [...host.querySelectorAll("button, a, input")].indexOf(document.activeElement) : -1;
    host.replaceChildren(...children);
    if (focused >= 0) host.querySelectorAll("button, a, input")[focused]?.focus();
  }

  showJob(job) {
    const fresh = this.job?.id !== job.id, ready = fresh || !this.job.timeline;
    const version = this.version;
    this.job = job;
    this.title.textContent = job.name;
    this.download.href = `/download/${job.id}.zip`;
    this.showTasks(job);
    if (fresh) this.composer.continueAfter(job.tasks);
    if (job.timeline && ready) this.timeline.show(job.timeline, this.file("thumbnails.jpg"));
    if (job.timeline && job.cues.rows && (fresh || job.cues.version !== version) && !this.saving && !this.timeline.following) {
      this.version = job.cues.version;
      this.setCues((this.base = job.cues.rows));
    }
    for (const button of this.work.querySelectorAll(".dv-needs button")) button.disabled = !job.timeline;
    this.showTakes(job);
  }

  showTasks(job) {
    const open = job.tasks.filter((task) => !["done", "failed", "cancelled"].includes(task.state));
    const last = job.tasks.at(-1);
    const shown = open.map((task) => {
      const running = task.state === "running";
      const piece = task.takes > 1 ? ` take ${(task.piece ?? 0) + 1} of ${task.takes}` : "";
      const left = task.share >= 1 ? ": finishing" : task.left === null || task.left === undefined ? "" : `, ${task.left < 90 ? `${Math.ceil(task.left)} s` : `${Math.ceil(task.left / 60)} min`} left`;
      return element("span", { class: "dv-task" }, running ? `${KINDS[task.kind]}${piece}${left}` : `${KINDS[task.kind]}: waiting`, element("progress", { max: 1, value: task.share ?? 0, "aria-label": "progress" }),
        element("button", { type: "button", onclick: () => this.ask("cancel", { id: job.id, task: task.number }) }, "Cancel"));
    });
    if (!open.length && last?.state === "failed") shown.push(element("span", { class: "dv-bad" }, last.error));
    if (!open.length && last?.state === "cancelled") shown.push(element("span", { class: "dv-muted" }, "cancelled"));
    if (!open.length && !job.timeline) shown.push(element("button", { type: "button", onclick: () => this.ask("analyse", { id: job.id }) }, "Read it again"));
    this.replace(this.status, shown, [open, last]);
  }

  showTakes(job) {
    const numbers = job.takes.map((take) => take.number);
    const best = numbers.length ? bestOf(job.takes).number : null;
    if (!numbers.includes(this.A)) this.A = best;
    if (!numbers.includes(this.B)) this.B = numbers.find((number) => number !== this.A) ?? null;
    this.noTakes.hidden = numbers.length > 0;
    const card = (take) => takeCard(take, {
      isBest: numbers.length > 1 && take.number === best,
      slots: this,
      onpick: (slot) => this.pick(slot, take.number),
      link: (suffix) => (take.files.includes(job.name + suffix) ? this.takeFile(take.number, job.name + suffix) : undefined),
    });
    this.replace(this.takes, job.takes.map(card), [job.takes, job.id]);
    const music = (number) => (number === null ? undefined : this.file(`takes/${String(number).padStart(3, "0")}/${encodeURIComponent(job.name)}.wav`));
    const own = this.file(job.file);
    this.player.offer({ video: own, A: music(this.A), B: music(this.B), original: job.timeline?.has_sound ? own : undefined });
    this.redoButton.disabled = !this.timeline.selection || this.A === null;
    const mixed = job.takes.find((take) => take.number === this.A)?.mix;
    this.mixer.show(job.id, job.timeline?.has_sound ? this.A : null, mixed, this.takeFile(this.A, `mix/${job.name}.mp4`));
  }

  file(name) {
    return `/files/${this.id}/${name}`;
  }

  takeFile(number, name) {
    return this.file(`takes/${String(number).padStart(3, "0")}/${name.split("/").map(encodeURIComponent).join("/")}`);
  }

  pick(slot, take) {
    const other = slot === "A" ? "B" : "A";
    if (this[other] === take) this[other] = this[slot];
    this[slot] = take;
    this.player.choose(slot);
    this.showTakes(this.job);
  }

  // ----------------------------------------------------------------------------------------------------- editing

  setCues(rows) {
    this.timeline.setCues(rows.map((cue) => ({ ...cue, key: ++this.keys })));
  }

  edited() {
    this.saving++;
    clearTimeout(this.later);
    this.later = setTimeout(() => this.save(), 300);
  }

  get rows() {
    return this.timeline.cues.map(({ time, kind, value, name, stop }) => ({ time, kind, value, name, stop }));
  }

  async save() {
    clearTimeout(this.later);
    this.later = null;
    const pending = this.saving, id = this.id;
    const answer = await this.ask("save_cues", { id, cues: this.rows, seen: this.version });
    this.unsaved = answer.lost;
    if (answer.lost || id !== this.id) return;
    if (answer.error) { // the next look shows the sheet as it is
      Object.assign(this, { saving: 0, version: null });
      return;
    }
    if (answer.stale && this.timeline.following) return this.edited(); // what is dragged stays until it is let go
    const mine = this.rows, base = this.base;
    Object.assign(this, { version: answer.version, base: answer.rows });
    if (answer.stale) {
      this.setCues(merged(base, mine, answer.rows));
      await this.save();
    } else if (this.saving === pending) this.saving = 0;
  }

  async flush() {
    if (this.saving) await this.save();
  }

  async undo() {
    clearTimeout(this.later);
    this.saving = 0;
    await this.ask("predicted_cues", { id: this.id });
    this.look();
  }

  add(cue) {
    const cues = [...this.timeline.cues, { name: "", stop: null, ...cue, key: ++this.keys }].sort((one, other) => one.time - other.time);
    this.timeline.setCues(cues);
    this.edited();
  }

  addHit() {
    const now = Math.round(this.player.now * 100) / 100;
    if (this.timeline.cues.some((cue) => cue.kind === "hit" && Math.abs(cue.time - now) < 0.25)) return this.say("Hits need 0.25 s between them.", true);
    this.add({ time: now, kind: "hit", value: 1 });
  }

  addSpan(kind) {
    if (!this.timeline.selection) return this.say("Select a span first: drag over the pictures, or type its seconds.", true);
    const [time, stop] = this.timeline.selection;
    if (this.timeline.cues.some((cue) => cue.kind === kind && cue.time < stop && cue.stop > time)) return this.say(`There is a ${kind} in this span already.`, true);
    this.add({ time, stop, kind, value: kind === "mood" ? this.colors.value : null });
  }

  selected(selection) {
    if (selection) {
      this.from.input.value = selection[0].toFixed(1);
      this.until.input.value = selection[1].toFixed(1);
    }
    this.redoButton.disabled = !selection || this.A === null;
  }

  typed() {
    const [start, stop] = [this.from, this.until].map((field) => parseFloat(field.input.value));
    if (stop > start) this.timeline.select(start, stop);
    else this.timeline.select(null);
  }

  unselect() {
    this.timeline.select(null);
    this.from.input.value = this.until.input.value = "";
  }

  key(event) {
    if (!this.job?.timeline || event.ctrlKey || event.metaKey) return;
    const now = this.player.now, end = this.job.timeline.duration, [start, stop] = this.timeline.selection ?? [0, end];
    const jump = (seconds) => this.player.seek(Math.min(end, Math.max(0, now + seconds)));
    const actions = { " ": () => this.player.toggle(), j: () => jump(-1), l: () => jump(1), x: () => this.player.swap(), h: () => this.addHit(), i: () => this.timeline.select(now, Math.max(stop, now + 1)), o: () => this.timeline.select(Math.min(start, now - 1), now), escape: () => this.unselect() };
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  async importCues() {
    const [file] = this.import.files;
    if (!file) return;
    await this.flush();
    const answer = await this.ask("import_cues", { id: this.id, name: file.name, text: await file.text() });
    this.import.value = "";
    if (!answer.error) {
      this.say(`${file.name}: read.`);
      this.look();
    }
  }

  async exportCues() {
    await this.flush();
    const answer = await this.ask("export_cues", { id: this.id, form: this.format.value });
    if (answer.error) return;
    const url = URL.createObjectURL(new Blob([answer.text], { type: "text/plain" }));
    element("a", { href: url, download: answer.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  // -------------------------------------------------------------------------------------------------------- tasks

  async compose() {
    await this.flush();
    const settings = this.composer.settings();
    const answer = await this.ask("compose", { id: this.id, settings });
    if (!answer.error) this.composer.continueAfter([{ seed: FIRST_SEED, ...settings }]);
    this.look();
  }

  async redo() {
    await this.flush();
    const settings = this.composer.settings(["seed", "steps", "guidance_scale"]);
    const answer = await this.ask("redo", { id: this.id, take: this.A, spans: [this.timeline.selection], settings });
    if (!answer.error) this.composer.continueAfter([{ seed: FIRST_SEED, ...settings }]);
    this.look();
  }

  async remove() {
    if (!confirm(`Remove ${this.job.name} with all its takes?`)) return;
    const answer = await this.ask("remove", { id: this.id });
    if (!answer.error) this.open(null);
  }
}

// What another tab saved, with what was changed here since `base`.
function merged(base, mine, theirs) {
  const text = JSON.stringify, place = ({ kind, time }) => `${kind} ${time}`;
  const before = new Set(base.map(text)), kept = new Set(mine.map(text));
  const changed = mine.filter((row) => !before.has(text(row))), places = new Set(changed.map(place));
  const others = theirs.filter((row) => !places.has(place(row)) && !(before.has(text(row)) && !kept.has(text(row))));
  return [...others, ...changed].sort((one, other) => one.time - other.time);
}
