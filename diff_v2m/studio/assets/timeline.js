// The timeline: thumbnails, palette, rhythm, cuts, hits and spans on one time axis.
// Everything that can be dragged can be moved with the arrow keys too.

const ROWS = { picture: 56, palette: 22, rhythm: 76 };
const STEP = 0.1; // seconds that an arrow key moves a hit; with Shift: one second
const CLOSEST = 0.25; // seconds between two hits, as the cue sheet demands
const CANVAS_PIXELS = 8000; // more than this, browsers refuse

export function clock(seconds, digits = 1) {
  const whole = Math.max(0, seconds);
  return `${Math.floor(whole / 60)}:${(whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

export function number(value, digits = 1) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export class Timeline {
  // onchange(cues): after an edit; onselect([start, stop] or null); onseek(seconds)
  constructor(host, { onchange, onselect, onseek }) {
    Object.assign(this, { onchange, onselect, onseek, zoom: 1, selection: null, cues: [], data: null, chosen: null, following: false });
    this.picture = element("canvas", { class: "dv-picture", "aria-hidden": "true" });
    this.palette = element("canvas", { class: "dv-palette", "aria-hidden": "true" });
    this.rhythm = element("canvas", {
      class: "dv-rhythm",
      tabindex: 0,
      role: "slider",
      "aria-label": "Rhythm of a second: left and right choose the second, up and down change it",
    });
    this.marks = element("div", { class: "dv-marks", role: "group", "aria-label": "Cues" });
    this.shade = element("div", { class: "dv-selection", hidden: true });
    this.head = element("div", { class: "dv-head" });
    this.axis = element("div", { class: "dv-axis", "aria-hidden": "true" });
    this.inner = element("div", { class: "dv-inner" }, this.axis, this.picture, this.palette, this.rhythm, this.marks, this.shade, this.head);
    this.scroll = element("div", { class: "dv-scroll" }, this.inner);
    host.append(this.scroll);
    for (const part of [this.axis, this.picture, this.palette]) part.addEventListener("pointerdown", (event) => this.#startSelecting(event));
    this.rhythm.addEventListener("pointerdown", (event) => this.#startDrawing(event));
    this.rhythm.addEventListener("keydown", (event) => this.#rhythmKey(event));
    this.second = 0;
    new ResizeObserver(() => this.draw()).observe(this.scroll);
    const redraw = () => this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new MutationObserver(redraw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  // data: what the server tells of a video; null: nothing yet
  show(data, thumbnails) {
    Object.assign(this, { data, cues: [], chosen: null });
    this.inner.hidden = !data;
    if (!data) return;
    this.second = Math.min(this.second, data.rhythm.length - 1);
    this.strip = new Image();
    this.strip.onload = () => this.draw();
    this.strip.src = thumbnails;
    this.draw();
  }

  setCues(cues) {
    this.cues = cues;
    this.draw();
  }

  setZoom(zoom) {
    this.zoom = Math.min(32, Math.max(1, zoom));
    this.draw();
  }

  select(start, stop) {
    this.selection = start === null ? null : [Math.max(0, Math.min(start, stop)), Math.min(this.data.duration, Math.max(start, stop))];
    this.#placeSelection();
    this.onselect(this.selection);
  }

  seek(seconds) {
    if (!this.data) return;
    this.head.style.left = `${(100 * seconds) / this.data.duration}%`;
  }

  // ---------------------------------------------------------------------------------------------------- drawing

  draw() {
    if (!this.data) return;
    this.inner.style.width = `${100 * this.zoom}%`;
    const style = getComputedStyle(this.inner);
    this.colors = Object.fromEntries(["text", "muted", "accent", "edited", "cut"].map((name) => [name, style.getPropertyValue(`--dv-${name}`).trim()]));
    this.#drawPicture();
    this.#drawPalette();
    this.#drawRhythm();
    this.#drawAxis();
    if (!this.following) this.#drawMarks();
    this.#placeSelection();
  }

  #canvas(canvas, height) {
    const width = Math.min(CANVAS_PIXELS, Math.round(this.inner.clientWidth * devicePixelRatio));
    canvas.width = Math.max(1, width);
    canvas.height = Math.round(height * devicePixelRatio);
    const context = canvas.getContext("2d");
    context.scale(canvas.width / this.data.duration, devicePixelRatio); // seconds across, pixels down
    return context;
  }

  #drawPicture() {
    const context = this.#canvas(this.picture, ROWS.picture);
    if (!this.strip.complete || !this.strip.naturalWidth) return;
    const { times, width, height } = this.data.thumbnails;
    const wide = (ROWS.picture * width) / height / (this.inner.clientWidth / this.data.duration); // seconds of one
    for (let at = 0; at < this.data.duration; at += wide) {
      const number = Math.max(0, times.findLastIndex((time) => time <= at + wide / 2));
      context.drawImage(this.strip, number * width, 0, width, height, at, 0, wide, ROWS.picture);
    }
  }

  #drawPalette() {
    const context = this.#canvas(this.palette, ROWS.palette);
    this.data.palette.forEach((colors, second) => {
      let top = 0;
      for (const [color, share] of colors) {
        context.fillStyle = color;
        context.fillRect(second, top, 1.01, ROWS.palette * share + 0.5);
        top += ROWS.palette * share;
      }
    });
    for (const mood of this.cues.filter((cue) => cue.kind === "mood")) {
      const names = String(mood.value).split(/[\s,;+]+/).filter(Boolean);
      names.forEach((name, number) => {
        context.fillStyle = name;
        context.fillRect(mood.time, (ROWS.palette * number) / names.length, mood.stop - mood.time, ROWS.palette / names.length);
      });
    }
  }

  #range() {
    const all = [...this.data.rhythm, ...this.cues.filter((cue) => cue.kind === "rhythm").map((cue) => cue.value)];
    const low = Math.min(0, ...all), high = Math.max(low + 0.5, ...all);
    return [low, high + 0.15 * (high - low)];
  }

  rhythmAt(second) {
    const cue = this.cues.find((one) => one.kind === "rhythm" && one.time === second);
    return cue ? cue.value : this.data.rhythm[second];
  }

  #drawRhythm() {
    const context = this.#canvas(this.rhythm, ROWS.rhythm);
    const [low, high] = this.#range();
    const y = (value) => ROWS.rhythm * (1 - (value - low) / (high - low));
    for (let second = 0; second < this.data.rhythm.length; second++) {
      const value = this.rhythmAt(second), edited = Math.abs(value - this.data.rhythm[second]) > 1e-3;
      context.fillStyle = edited ? this.colors.edited : this.colors.accent;
      context.fillRect(second + 0.06, y(value), 0.88, ROWS.rhythm - y(value));
      if (edited) {
        context.fillStyle = this.colors.muted; // as it was predicted
        context.fillRect(second + 0.06, y(this.data.rhythm[second]) - 0.75, 0.88, 1.5);
      }
    }
    const pixel = this.data.duration / this.inner.clientWidth;
    context.fillStyle = this.colors.cut;
    for (const cut of this.cues.filter((cue) => cue.kind === "cut" && cue.value !== "none")) context.fillRect(cut.time - pixel / 2, 0, pixel, ROWS.rhythm);
    if (document.activeElement === this.rhythm) {
      context.strokeStyle = this.colors.text;
      context.lineWidth = pixel;
      context.strokeRect(this.second, 0.5, 1, ROWS.rhythm - 1);
    }
    const value = this.rhythmAt(this.second);
    const about = { "aria-valuemin": low.toFixed(2), "aria-valuemax": high.toFixed(2), "aria-valuenow": value?.toFixed(2), "aria-valuetext": `second ${this.second}: ${value?.toFixed(2)}` };
    for (const [key, text] of Object.entries(about)) this.rhythm.setAttribute(key, text);
  }

  #drawAxis() {
    const pixels = this.inner.clientWidth / this.data.duration;
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((seconds) => seconds * pixels >= 52) ?? 1200;
    const ticks = [];
    for (let at = 0; at < this.data.duration - 0.3 * step; at += step) {
      ticks.push(element("span", { style: `left:${(100 * at) / this.data.duration}%` }, clock(at, 0)));
    }
    this.axis.replaceChildren(...ticks);
  }

  #drawMarks() {
    const focused = this.marks.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const percent = (seconds) => `${(100 * seconds) / this.data.duration}%`;
    const made = [];
    for (const cue of this.cues) {
      const key = `${cue.kind} ${cue.key}`;
      if (cue.kind === "hit") {
        const label = `hit ${cue.name || ""} at ${cue.time.toFixed(2)} seconds`;
        made.push(element("button", { class: "dv-hit", type: "button", role: "slider", "data-key": key, style: `left:${percent(cue.time)}`, title: label, "aria-label": label, "aria-valuemin": 0, "aria-valuemax": this.data.duration.toFixed(2), "aria-valuenow": cue.time.toFixed(2), onpointerdown: (event) => this.#startMoving(event, cue), onkeydown: (event) => this.#markKey(event, cue), onfocus: () => this.#choose(cue) }));
      } else if (cue.kind === "mood" || cue.kind === "silence") {
        const label = `${cue.kind} ${cue.kind === "mood" ? cue.value : ""} from ${cue.time.toFixed(1)} to ${cue.stop.toFixed(1)} seconds`;
        made.push(element("button", { class: `dv-span dv-${cue.kind}`, type: "button", "data-key": key, style: `left:${percent(cue.time)};width:${percent(cue.stop - cue.time)}`, title: label, "aria-label": label, onpointerdown: (event) => this.#startMoving(event, cue), onkeydown: (event) => this.#markKey(event, cue), onfocus: () => this.#choose(cue) }, element("span", {}, cue.kind === "mood" ? String(cue.value) : "silence")));
      }
    }
    this.marks.replaceChildren(...made);
    if (focused) this.marks.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  #placeSelection() {
    this.shade.hidden = this.selection === null;
    if (this.selection === null) return;
    const [start, stop] = this.selection;
    this.shade.style.left = `${(100 * start) / this.data.duration}%`;
    this.shade.style.width = `${(100 * (stop - start)) / this.data.duration}%`;
  }

  // ----------------------------------------------------------------------------------------------------- editing

  #seconds(event) {
    const box = this.inner.getBoundingClientRect();
    return Math.min(this.data.duration, Math.max(0, ((event.clientX - box.left) / box.width) * this.data.duration));
  }

  #follow(event, move, end = () => {}) {
    const target = event.currentTarget;
    target.setPointerCapture(event.pointerId);
    this.following = true; // no other drag begins, and the mark that has the pointer stays
    const stop = () => {
      target.removeEventListener("pointermove", move);
      this.following = false;
      this.draw();
      end();
    };
    target.addEventListener("pointermove", move);
    target.addEventListener("lostpointercapture", stop, { once: true }); // follows pointerup, and any other end
  }

  #startSelecting(event) {
    if (event.button || this.following) return;
    const start = this.#seconds(event);
    let moved = false;
    this.#follow(event, (now) => {
      if (Math.abs(now.clientX - event.clientX) > 4) moved = true;
      if (moved) this.select(start, this.#seconds(now));
    }, () => moved || this.onseek(start));
  }

  #startDrawing(event) {
    if (event.button || this.following) return;
    const paint = (now) => {
      const box = this.rhythm.getBoundingClientRect(), [low, high] = this.#range();
      const share = Math.min(1, Math.max(0, 1 - (now.clientY - box.top) / box.height));
      this.second = Math.min(this.data.rhythm.length - 1, Math.floor(this.#seconds(now)));
      this.setRhythm(this.second, low + share * (high - low) * 0.999);
    };
    this.rhythm.focus();
    paint(event);
    this.#follow(event, paint, () => this.onchange(this.cues));
  }

  setRhythm(second, value) {
    const cue = this.cues.find((one) => one.kind === "rhythm" && one.time === second);
    const rounded = Math.round(value * 1e4) / 1e4;
    if (cue) cue.value = rounded;
    else this.cues.push({ time: second, kind: "rhythm", value: rounded, name: "", stop: null });
    this.#drawRhythm();
  }

  #rhythmKey(event) {
    const [low, high] = this.#range(), last = this.data.rhythm.length - 1;
    const across = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
    const up = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
    if (across) this.second = Math.min(last, Math.max(0, this.second + across));
    if (up) {
      this.setRhythm(this.second, Math.min(high, Math.max(low, this.rhythmAt(this.second) + up * (high - low))));
      this.onchange(this.cues);
    }
    if (across || up) {
      event.preventDefault();
      this.#drawRhythm();
    }
  }

  #choose(cue) {
    this.chosen = cue;
    this.marks.querySelectorAll(".dv-chosen").forEach((mark) => mark.classList.remove("dv-chosen"));
    this.marks.querySelector(`[data-key="${cue.kind} ${cue.key}"]`)?.classList.add("dv-chosen");
  }

  #startMoving(event, cue) {
    if (event.button || this.following) return;
    const from = this.#seconds(event), time = cue.time, length = cue.stop === null ? 0 : cue.stop - cue.time;
    const edge = event.target.closest(".dv-span")?.getBoundingClientRect();
    const right = edge && edge.right - event.clientX < 10, left = edge && !right && event.clientX - edge.left < 10;
    const target = event.currentTarget;
    let moved = false;
    this.#follow(event, (now) => {
      const by = this.#seconds(now) - from;
      moved = moved || Math.abs(now.clientX - event.clientX) > 2;
      if (!moved) return;
      if (right) cue.stop = Math.min(this.data.duration, Math.max(cue.time + 0.2, time + length + by));
      else if (left) cue.time = Math.max(0, Math.min(cue.stop - 0.2, time + by));
      else this.#move(cue, time + by, length);
      target.style.left = `${(100 * cue.time) / this.data.duration}%`;
      if (cue.stop !== null) target.style.width = `${(100 * (cue.stop - cue.time)) / this.data.duration}%`;
      this.#drawPalette();
    }, () => {
      if (moved) this.onchange(this.cues);
    });
  }

  #move(cue, time, length) {
    cue.time = Math.round(Math.min(this.data.duration - length, Math.max(0, time)) * 1000) / 1000;
    if (cue.stop !== null) cue.stop = cue.time + length;
    const others = this.cues.filter((one) => one.kind === "hit" && one !== cue);
    const near = cue.kind === "hit" && others.find((one) => Math.abs(one.time - cue.time) < CLOSEST);
    if (near) cue.time = near.time + (cue.time < near.time ? -CLOSEST : CLOSEST);
  }

  #markKey(event, cue) {
    const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") {
      const marks = [...this.marks.children], place = marks.indexOf(event.currentTarget);
      this.cues = this.cues.filter((one) => one !== cue);
      this.chosen = null;
      this.draw();
      (this.marks.children[Math.min(place, this.marks.children.length - 1)] ?? this.rhythm).focus();
    } else if (by) {
      const step = event.shiftKey ? 10 * by : by;
      if (event.altKey && cue.stop !== null) cue.stop = Math.min(this.data.duration, Math.max(cue.time + 0.2, cue.stop + step));
      else this.#move(cue, cue.time + step, cue.stop === null ? 0 : cue.stop - cue.time);
      this.draw();
    } else return;
    event.preventDefault();
    this.onchange(this.cues);
  }
}
