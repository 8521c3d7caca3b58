// The mix of a take with the video's own sound: its controls, and its loudness before it is made.

import { element, number } from "/studio/timeline.js";

const START = { target: -23, under: 12, gap: 0, dip: 0 };

export class Mixer {
  // ask(action, values): of the studio; onestimate(answer): loudness and gains of the mix
  constructor({ ask, onestimate }) {
    Object.assign(this, { ask, onestimate, fields: {}, estimated: null, asked: 0, id: null, take: null });
    this.loudness = element("dl", { class: "dv-loudness", "aria-live": "polite", "aria-label": "Loudness of the mix" });
    this.made = element("p", { class: "dv-muted" });
    this.section = element("section", { "aria-label": "Mix", hidden: true }, element("h3", {}, "Mix take A with the video's own sound"),
      element("div", { class: "dv-row" },
        this.#choice("Music", "video_sound", [["duck", "goes down under"], ["mix", "stays at one level"]]),
        this.#choice("under", "duck_under", [["speech", "speech"], ["sound", "any sound"]]),
        this.#slider("Loudness of the speech", "target", -40, -8, "LUFS"), this.#slider("Music below it", "under", 0, 40, "LU"),
        this.#slider("in gaps", "gap", 0, 40, "LU"), this.#slider("Dip at 2–4 kHz", "dip", 0, 12, "dB")),
      this.loudness,
      element("div", { class: "dv-row" }, element("button", { type: "button", class: "dv-primary", onclick: () => this.ask("mix", this.#values()) }, "Make the mix"), this.made));
  }

  // take: null if there is nothing to mix; mix: what is known of its last mix; link: to that
  show(id, take, mix, link) {
    Object.assign(this, { id, take });
    this.section.hidden = take === null;
    if (take === null) return;
    this.made.replaceChildren(...(mix ? [`made: ${number(mix.mix_lufs)} LUFS, true peak ${number(mix.true_peak)} dBTP `, element("a", { href: link, download: "" }, "mp4")] : []));
    if (this.estimated !== `${id} ${take}`) this.#estimate();
  }

  #slider(text, name, min, max, unit) {
    const shown = element("output", {});
    const show = () => { shown.textContent = `${String(this.fields[name].value).replace("-", "−")} ${unit}`; };
    this.fields[name] = element("input", { type: "range", min, max, step: 1, value: START[name], oninput: () => { show(); this.#estimate(); } });
    show();
    return element("label", { class: "dv-slider" }, element("span", {}, text, " ", shown), this.fields[name]);
  }

  #choice(text, name, options) {
    this.fields[name] = element("select", { onchange: () => this.#estimate() }, ...options.map(([value, label]) => element("option", { value }, label)));
    return element("label", {}, element("span", {}, text), this.fields[name]);
  }

  #values() {
    const settings = { tracks: false };
    for (const [name, field] of Object.entries(this.fields)) settings[name] = field.type === "range" ? field.valueAsNumber : field.value;
    settings.gap = Math.min(settings.gap, settings.under);
    return { id: this.id, take: this.take, settings };
  }

  async #estimate() {
    this.estimated = `${this.id} ${this.take}`;
    const asked = ++this.asked;
    const answer = await this.ask("estimate", this.#values());
    if (answer.error || asked !== this.asked) return; // a later one is on its way
    this.onestimate(answer);
    const rows = { mix: [answer.mix_lufs, "LUFS"], music: [answer.music_lufs, "LUFS"], original: [answer.original_lufs, "LUFS"], "music below": [answer.music_under, "LU"] };
    this.loudness.replaceChildren(...Object.entries(rows).flatMap(([name, [value, unit]]) => [element("dt", {}, name), element("dd", {}, `${number(value)} ${unit}`)]));
  }
}
