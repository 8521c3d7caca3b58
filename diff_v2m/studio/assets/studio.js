// The page: queue, timeline, takes and mix of one video. The server is asked once a second; the page keeps nothing.

import { Player } from "/studio/player.js";
import { Timeline, clock, element } from "/studio/timeline.js";
import { Uploads } from "/studio/upload.js";

const EVERY = 1000; // milliseconds between two questions; a hidden page asks less often
const MIX = { video_sound: "duck", duck_under: "speech", target: -23, under: 12, gap: 0, dip: 0, tracks: false };
const KINDS = { analyse: "reading", compose: "composing", redo: "composing a span", mix: "mixing" };
const FORMATS = { sheet: "Cue sheet (.cues.csv)", resolve: "Resolve (.edl)", cmx3600: "CMX 3600 (.edl)", fcpxml: "Final Cut Pro (.fcpxml)", fcp7: "Premiere (.xml)", reaper: "REAPER (.csv)", srt: "Subtitles (.srt)", vtt: "Subtitles (.vtt)" };

export function start(host, server, most) { // most: bytes of an upload
  new Studio(host.querySelector(".studio"), server, most).run();
}

class Studio {
  constructor(root, server, most) {
    Object.assign(this, { root, server, most, id: sessionStorage.getItem("dv-job"), job: null, A: null, B: null, saving: 0, base: [], keys: 0, presets: {}, model: {} });
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
    this.presets = state.presets;
    this.showQueue(state);
    this.showPresets();
    this.showModel(state.model ?? {});
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
    new Uploads(uploads, { most: this.most, onadded: (id, first) => first && this.open(id) });
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
    this.from = this.secondsField("Selection from", () => this.typed());
    this.until = this.secondsField("to", () => this.typed());
    this.colors = element("input", { type: "text", value: "navy gold", size: 14, "aria-label": "Colours of the mood" });
    this.redoButton = button("Compose this span again", () => this.redo());
    this.import = element("input", { type: "file", accept: ".csv,.edl,.fcpxml,.xml,.srt,.vtt", class: "dv-hidden", "aria-label": "Import cues", onchange: () => this.importCues() });
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
      element("div", { class: "dv-row" }, this.title, this.status, tools), stage, board, editing, help, this.buildCompose(), this.buildTakes(), this.buildMix());
    this.root.append(uploads, this.lost, this.message, this.queue, this.work);
  }

  secondsField(text, onchange) {
    const input = element("input", { type: "number", min: 0, step: 0.1, onchange });
    return { input, label: element("label", {}, `${text} `, input, " s") };
  }

  numberField(text, name, value, options, fields) {
    fields[name] = element("input", { type: "number", value, ...options });
    return element("label", {}, element("span", {}, text), fields[name]);
  }

  buildCompose() {
    this.settings = {};
    this.preset = element("select", { onchange: () => this.usePreset() });
    const form = element("form", { class: "dv-row dv-needs", onsubmit: (event) => { event.preventDefault(); this.compose(); } },
      element("label", {}, element("span", {}, "Preset"), this.preset),
      this.numberField("Takes", "takes", 1, { min: 1, max: 16 }, this.settings),
      this.numberField("Seed", "seed", 42, { min: 0 }, this.settings),
      this.numberField("Steps", "steps", null, { min: 1, max: 1000 }, this.settings),
      this.numberField("Guidance", "guidance_scale", null, { step: 0.5 }, this.settings),
      element("button", { type: "submit", class: "dv-primary" }, "Compose"),
      element("button", { type: "button", onclick: () => this.savePreset() }, "Keep as preset…"),
      element("button", { type: "button", onclick: () => this.forgetPreset() }, "Forget preset"));
    return element("section", { "aria-label": "Compose" }, element("h3", {}, "Compose"), form);
  }

  buildTakes() {
    this.takes = element("div", { class: "dv-takes" });
    this.noTakes = element("p", { class: "dv-muted" }, "No takes yet. Compose makes some; each follows the cues as they are now.");
    return element("section", { "aria-label": "Takes" }, element("h3", {}, "Takes"), this.noTakes, this.takes);
  }

  buildMix() {
    this.mixFields = {};
    const slider = (text, name, min, max, step, unit) => {
      const shown = element("output", {});
      const show = () => { shown.textContent = `${String(this.mixFields[name].value).replace("-", "−")} ${unit}`; };
      this.mixFields[name] = element("input", { type: "range", min, max, step, value: MIX[name], oninput: () => { show(); this.estimate(); } });
      show();
      return element("label", { class: "dv-slider" }, element("span", {}, text, " ", shown), this.mixFields[name]);
    };
    const choice = (text, name, options) => {
      this.mixFields[name] = element("select", { onchange: () => this.estimate() }, ...options.map(([value, label]) => element("option", { value }, label)));
      return element("label", {}, element("span", {}, text), this.mixFields[name]);
    };
    this.loudness = element("dl", { class: "dv-loudness", "aria-live": "polite", "aria-label": "Loudness of the mix" });
    this.mixed = element("p", { class: "dv-muted" });
    this.mixing = element("section", { "aria-label": "Mix", hidden: true }, element("h3", {}, "Mix take A with the video's own sound"),
      element("div", { class: "dv-row" },
        choice("Music", "video_sound", [["duck", "goes down under"], ["mix", "stays at one level"]]),
        choice("under", "duck_under", [["speech", "speech"], ["sound", "any sound"]]),
        slider("Loudness of the speech", "target", -40, -8, 1, "LUFS"), slider("Music below it", "under", 0, 40, 1, "LU"),
        slider("in gaps", "gap", 0, 40, 1, "LU"), slider("Dip at 2–4 kHz", "dip", 0, 12, 1, "dB")),
      this.loudness,
      element("div", { class: "dv-row" }, element("button", { type: "button", class: "dv-primary", onclick: () => this.mix() }, "Make the mix"), this.mixed));
    return this.mixing;
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
    if (fresh) this.settings.seed.value = Math.max(42, ...job.tasks.filter((task) => task.seed !== undefined).map((task) => task.seed + (task.takes ?? 1))); // music that it has not yet
    if (job.timeline && ready) this.timeline.show(job.timeline, this.file("thumbnails.jpg"));
    if (job.timeline && job.cues.rows && (fresh || job.cues.version !== version) && !this.saving) {
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
    if (!numbers.includes(this.A)) this.A = numbers.length ? this.best(job).number : null;
    if (!numbers.includes(this.B)) this.B = numbers.find((number) => number !== this.A) ?? null;
    this.noTakes.hidden = numbers.length > 0;
    const best = numbers.length ? this.best(job).number : null;
    this.replace(this.takes, job.takes.map((take) => this.takeCard(job, take, best)), [job.takes, job.id]);
    const music = (number) => (number === null ? undefined : this.file(`takes/${String(number).padStart(3, "0")}/${encodeURIComponent(job.name)}.wav`));
    const own = this.file(job.file);
    this.player.offer({ video: own, A: music(this.A), B: music(this.B), original: job.timeline?.has_sound ? own : undefined });
    this.redoButton.disabled = !this.timeline.selection || this.A === null;
    const mixable = this.A !== null && job.timeline?.has_sound;
    this.mixing.hidden = !mixable;
    const about = mixable && job.takes.find((take) => take.number === this.A)?.mix;
    this.mixed.replaceChildren(...(about ? [`made: ${number(about.mix_lufs)} LUFS, true peak ${number(about.true_peak)} dBTP `, element("a", { href: this.takeFile(this.A, `mix/${job.name}.mp4`), download: "" }, "mp4")] : []));
    if (mixable && this.estimated !== `${job.id} ${this.A}`) this.estimate();
  }

  best(job) {
    return job.takes.reduce((one, other) => (other.score.total > one.score.total ? other : one));
  }

  file(name) {
    return `/files/${this.id}/${name}`;
  }

  takeFile(number, name) {
    return this.file(`takes/${String(number).padStart(3, "0")}/${name.split("/").map(encodeURIComponent).join("/")}`);
  }

  takeCard(job, take, best) {
    const what = take.redo ? `take ${take.of} with ${take.redo.map((span) => span.map((at) => clock(at)).join("–")).join(", ")} again` : `seed ${take.seed}`;
    const parts = ["rhythm", "cuts", "hits", "silence", "clipping", "noise"].filter((name) => take.score[name] !== null);
    const landed = take.hits.filter((hit) => hit.landed).length;
    const pick = (slot) => element("label", { class: "dv-pick" }, element("input", { type: "radio", name: `dv-${slot}`, value: take.number, checked: this[slot] === take.number, onchange: () => this.pick(slot, take.number) }), slot);
    const kinds = [["mp4", ".mp4"], ["wav", ".wav"], ["midi", ".mid"], ["picture", ".png"], ["sheet", ".cues.csv"]];
    const links = kinds.filter(([, suffix]) => take.files.includes(job.name + suffix)).map(([label, suffix]) => element("a", { href: `${this.takeFile(take.number, job.name + suffix)}?download=1`, download: "" }, label));
    return element("article", { class: "dv-take", "data-take": take.number, "aria-label": `Take ${take.number}` },
      element("header", {}, element("strong", {}, `Take ${take.number}`), take.number === best && job.takes.length > 1 ? element("span", { class: "dv-best" }, "best score") : null, pick("A"), pick("B")),
      element("p", { class: "dv-muted" }, [what, `${take.steps} steps`, take.facts.key, take.facts.tempo && `${Math.round(take.facts.tempo)} BPM`, take.hits.length && `${landed} of ${take.hits.length} hits met`].filter(Boolean).join(" · ")),
      element("dl", { class: "dv-scores" }, ...["total", ...parts].flatMap((name) => [element("dt", {}, name), element("dd", {}, number(take.score[name], 2))])),
      element("p", { class: "dv-links" }, ...links));
  }

  pick(slot, take) {
    this[slot] = take;
    this.player.choose(slot);
    this.showTakes(this.job);
  }

  showPresets(chosen = this.preset.value) {
    const names = Object.keys(this.presets);
    if (this.presetNames === names.join("\n")) return;
    this.presetNames = names.join("\n");
    this.preset.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(chosen)) this.preset.value = chosen;
  }

  // The model's own values, which apply where a field is empty.
  showModel({ steps = "", guidance_scale = "", guidance_range: [min, max] = ["", ""], is_student = false }) {
    Object.assign(this.settings.steps, { placeholder: steps, disabled: is_student });
    Object.assign(this.settings.guidance_scale, { placeholder: guidance_scale, min, max });
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

  // Only what the fields say: the model has values of its own for the rest.
  sampling(names = Object.keys(this.settings)) {
    const filled = names.filter((name) => !this.settings[name].disabled && this.settings[name].value !== "");
    return Object.fromEntries(filled.map((name) => [name, this.settings[name].valueAsNumber]));
  }

  usePreset() {
    const values = { takes: 1, ...this.presets[this.preset.value] };
    for (const [name, field] of Object.entries(this.settings)) if (name !== "seed") field.value = values[name] ?? "";
  }

  async savePreset() {
    const name = prompt("Name of the preset");
    if (!name) return;
    const { seed, ...kept } = this.sampling();
    const answer = await this.ask("save_preset", { name, settings: kept });
    if (answer.error) return;
    this.presets = answer.presets;
    this.showPresets();
    this.preset.value = answer.name;
  }

  async forgetPreset() {
    const answer = await this.ask("remove_preset", { name: this.preset.value });
    if (answer.error) return;
    this.presets = answer.presets;
    this.showPresets();
    this.usePreset();
  }

  async compose() {
    await this.flush();
    const settings = this.sampling();
    const answer = await this.ask("compose", { id: this.id, settings });
    if (!answer.error) this.settings.seed.value = (settings.seed ?? 42) + (settings.takes ?? 1); // other music next time
    this.look();
  }

  async redo() {
    await this.flush();
    const settings = this.sampling(["seed", "steps", "guidance_scale"]);
    const answer = await this.ask("redo", { id: this.id, take: this.A, spans: [this.timeline.selection], settings });
    if (!answer.error) this.settings.seed.value = (settings.seed ?? 42) + 1;
    this.look();
  }

  mixSettings() {
    const values = { tracks: false };
    for (const [name, field] of Object.entries(this.mixFields)) values[name] = field.type === "range" ? field.valueAsNumber : field.value;
    values.gap = Math.min(values.gap, values.under);
    return values;
  }

  async mix() {
    await this.ask("mix", { id: this.id, take: this.A, settings: this.mixSettings() });
    this.look();
  }

  async estimate() {
    this.estimated = `${this.id} ${this.A}`;
    const answer = await this.ask("estimate", { id: this.id, take: this.A, settings: this.mixSettings() });
    if (answer.error) return;
    this.player.curve = answer;
    const rows = { mix: [answer.mix_lufs, "LUFS"], music: [answer.music_lufs, "LUFS"], original: [answer.original_lufs, "LUFS"], "music below": [answer.music_under, "LU"] };
    this.loudness.replaceChildren(...Object.entries(rows).flatMap(([name, [value, unit]]) => [element("dt", {}, name), element("dd", {}, `${number(value)} ${unit}`)]));
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

function number(value, digits = 1) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}
