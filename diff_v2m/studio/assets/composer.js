// What new music is asked for: takes, seed, steps and guidance, and presets of them.

import { element } from "/studio/timeline.js";

export const FIRST_SEED = 42; // of the server, where none is asked for

export class Composer {
  // ask(action, values): of the studio; oncompose(): the form was sent
  constructor({ ask, oncompose }) {
    Object.assign(this, { ask, fields: {}, presets: {}, names: null });
    this.preset = element("select", { onchange: () => this.#use() });
    const send = (event) => {
      event.preventDefault();
      oncompose();
    };
    const form = element("form", { class: "dv-row dv-needs", onsubmit: send },
      element("label", {}, element("span", {}, "Preset"), this.preset),
      this.#field("Takes", "takes", { value: 1, min: 1, max: 16 }), this.#field("Seed", "seed", { value: FIRST_SEED, min: 0 }),
      this.#field("Steps", "steps", { min: 1, max: 1000 }), this.#field("Guidance", "guidance_scale", { step: 0.5 }),
      element("button", { type: "submit", class: "dv-primary" }, "Compose"),
      element("button", { type: "button", onclick: () => this.#keep() }, "Keep as preset…"),
      element("button", { type: "button", onclick: () => this.#forget() }, "Forget preset"));
    this.section = element("section", { "aria-label": "Compose" }, element("h3", {}, "Compose"), form);
  }

  #field(text, name, options) {
    this.fields[name] = element("input", { type: "number", ...options });
    return element("label", {}, element("span", {}, text), this.fields[name]);
  }

  // model: its own values, which apply where a field is empty; a student takes no other steps
  show(presets, { steps = "", guidance_scale = "", guidance_range: [min, max] = ["", ""], is_student = false }) {
    Object.assign(this.fields.steps, { placeholder: steps, disabled: is_student });
    Object.assign(this.fields.guidance_scale, { placeholder: guidance_scale, min, max });
    this.presets = presets;
    const names = Object.keys(presets), chosen = this.preset.value;
    if (this.names === names.join("\n")) return;
    this.names = names.join("\n");
    this.preset.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(chosen)) this.preset.value = chosen;
  }

  // Only what the fields say.
  settings(names = Object.keys(this.fields)) {
    const filled = names.filter((name) => !this.fields[name].disabled && this.fields[name].value !== "");
    return Object.fromEntries(filled.map((name) => [name, this.fields[name].valueAsNumber]));
  }

  // Go on to music that none of these tasks or settings asked for.
  continueAfter(asked) {
    const next = asked.filter(({ seed }) => Number.isInteger(seed)).map(({ seed, takes = 1 }) => seed + takes);
    this.fields.seed.value = next.length ? Math.max(...next) : FIRST_SEED;
  }

  #use() {
    const values = { takes: 1, ...this.presets[this.preset.value] };
    for (const [name, field] of Object.entries(this.fields)) if (name !== "seed") field.value = values[name] ?? "";
  }

  async #keep() {
    const name = prompt("Name of the preset");
    if (!name) return;
    const { seed, ...kept } = this.settings();
    const answer = await this.ask("save_preset", { name, settings: kept });
    if (answer.error) return;
    this.presets = answer.presets;
    this.names = null;
    this.preset.append(element("option", { value: answer.name }, answer.name)); // until the next look
    this.preset.value = answer.name;
  }

  async #forget() {
    const answer = await this.ask("remove_preset", { name: this.preset.value });
    if (answer.error) return;
    this.presets = answer.presets;
    this.preset.selectedOptions[0].remove();
    this.#use();
  }
}
