// Takes side by side: how each was made, its scores and its files.

import { clock, element, number } from "/studio/timeline.js";

const PARTS = ["rhythm", "cuts", "hits", "silence", "clipping", "noise"];
const FILES = { mp4: ".mp4", wav: ".wav", midi: ".mid", picture: ".png", sheet: ".cues.csv" };

export function bestOf(takes) {
  return takes.reduce((one, other) => (other.score.total > one.score.total ? other : one));
}

// slots: {A, B}, numbers of takes; onpick(slot); link(suffix): address of a file, undefined if there is none
export function takeCard(take, { isBest, slots, onpick, link }) {
  const made = take.redo ? `take ${take.of} with ${take.redo.map((span) => span.map((at) => clock(at)).join("–")).join(", ")} again` : `seed ${take.seed}`;
  const landed = take.hits.filter((hit) => hit.landed).length;
  const facts = [made, `${take.steps} steps`, take.facts.key, take.facts.tempo && `${Math.round(take.facts.tempo)} BPM`, take.hits.length && `${landed} of ${take.hits.length} hits met`];
  const scores = ["total", ...PARTS.filter((name) => take.score[name] !== null)];
  const pick = (slot) => element("label", { class: "dv-pick" }, element("input", { type: "radio", name: `dv-${slot}`, value: take.number, checked: slots[slot] === take.number, onchange: () => onpick(slot) }), slot);
  const links = Object.entries(FILES).filter(([, suffix]) => link(suffix)).map(([label, suffix]) => element("a", { href: `${link(suffix)}?download=1`, download: "" }, label));
  return element("article", { class: "dv-take", "data-take": take.number, "aria-label": `Take ${take.number}` },
    element("header", {}, element("strong", {}, `Take ${take.number}`), isBest ? element("span", { class: "dv-best" }, "best score") : null, pick("A"), pick("B")),
    element("p", { class: "dv-muted" }, facts.filter(Boolean).join(" · ")),
    element("dl", { class: "dv-scores" }, ...scores.flatMap((name) => [element("dt", {}, name), element("dd", {}, number(take.score[name], 2))])),
    element("p", { class: "dv-links" }, ...links));
}
