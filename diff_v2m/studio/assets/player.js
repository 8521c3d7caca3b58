// Picture and sound: take A, take B, the video's own sound, or take A mixed with it, on one clock; and a loudness meter.

import { clock, element } from "/studio/timeline.js";

const DRIFT = 0.06; // seconds that two sounds may lie apart
const MOMENTARY = 0.4; // seconds of the meter, as BS.1770 says

// K-weighting of BS.1770 at any sample rate: a high shelf, then a high-pass.
function weighting(rate) {
  const filters = [];
  for (const [f0, gain, q] of [[1681.974450955533, 3.999843853973347, 0.7071752369554196], [38.13547087602444, null, 0.5003270373238773]]) {
    const k = Math.tan((Math.PI * f0) / rate), a0 = 1 + k / q + k * k;
    const back = [1, (2 * (k * k - 1)) / a0, (1 - k / q + k * k) / a0];
    if (gain === null) filters.push([[1, -2, 1], back]);
    else {
      const vh = 10 ** (gain / 20), vb = vh ** 0.4996667741545416;
      filters.push([[(vh + (vb * k) / q + k * k) / a0, (2 * (k * k - vh)) / a0, (vh - (vb * k) / q + k * k) / a0], back]);
    }
  }
  return filters;
}

export class Player {
  // ontime(seconds), called while it plays
  constructor(host, { ontime }) {
    this.ontime = ontime;
    this.mode = "A";
    this.curve = null; // of the mix: original_db, music_db
    this.video = element("video", { class: "dv-video", muted: true, playsinline: true, preload: "metadata", "aria-label": "Picture" });
    this.video.muted = true;
    const sound = () => element("audio", { preload: "auto" });
    this.sounds = { A: sound(), B: sound(), original: sound() };
    this.button = element("button", { type: "button", class: "dv-play", "aria-label": "Play", onclick: () => this.toggle() }, "▶");
    this.time = element("span", { class: "dv-time" }, "0:00.0");
    this.choices = element("div", { class: "dv-choices", role: "radiogroup", "aria-label": "What plays" });
    this.meter = element("meter", { class: "dv-meter", min: -50, max: -5, value: -50, low: -40, high: -12, optimum: -20, "aria-label": "Loudness now" });
    this.level = element("output", { class: "dv-level", title: "momentary loudness" }, "– LUFS");
    const bar = element("div", { class: "dv-bar" }, this.button, this.time, this.choices, this.meter, this.level);
    host.append(this.video, bar);
    this.video.addEventListener("click", () => this.toggle());
    this.sounds.A.addEventListener("ended", () => this.pause());
    this.video.addEventListener("ended", () => this.pause());
    this.offer({});
  }

  // urls: {video, A, B, original}; undefined ones are not offered
  offer(urls) {
    const same = (media, url) => (media.getAttribute("src") ?? "") === (url ?? "");
    for (const [name, sound] of Object.entries(this.sounds)) {
      if (!same(sound, urls[name])) {
        const at = this.now;
        if (urls[name]) sound.src = urls[name];
        else sound.removeAttribute("src");
        if (urls[name] && at) sound.currentTime = at;
        if (this.isPlaying && urls[name]) sound.play().catch(() => {});
      }
    }
    if (urls.video && !same(this.video, urls.video)) this.video.src = urls.video;
    const offered = [["A", "Take A"], ["B", "Take B"], ["mix", "A in the mix"], ["original", "Original"]].filter(([name]) =>
      name === "mix" ? urls.A && urls.original : urls[name]);
    if (!this.picked || !offered.some(([name]) => name === this.mode)) this.mode = offered[0]?.[0] ?? "A";
    const key = offered.map(([name]) => name).join();
    if (key !== this.offered) {
      this.offered = key;
      this.choices.replaceChildren(...offered.map(([name, label]) => element("label", {}, element("input", { type: "radio", name: "dv-plays", value: name, onchange: () => this.choose(name) }), label)));
    }
    this.#mark();
  }

  choose(mode) {
    Object.assign(this, { mode, picked: true });
    this.#mark();
  }

  swap() {
    this.choose(this.mode === "A" && this.sounds.B.src ? "B" : "A");
  }

  #mark() {
    for (const input of this.choices.querySelectorAll("input")) input.checked = input.value === this.mode;
  }

  get leader() {
    return this.sounds.A.getAttribute("src") ? this.sounds.A : this.video;
  }

  get now() {
    return this.leader.currentTime || 0;
  }

  get isPlaying() {
    return !this.leader.paused && !this.leader.ended;
  }

  seek(seconds) {
    for (const media of [this.video, ...Object.values(this.sounds)]) if (media.getAttribute("src")) media.currentTime = seconds;
    this.#show();
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    this.#connect();
    if (this.leader.ended) this.seek(0);
    for (const media of [this.video, ...Object.values(this.sounds)]) {
      if (media.getAttribute("src")) {
        media.currentTime = this.now;
        media.play().catch(() => {}); // a picture or sound that this browser cannot play; the others do
      }
    }
    this.button.textContent = "❚❚";
    this.button.setAttribute("aria-label", "Pause");
    this.#loop();
  }

  pause() {
    for (const media of [this.video, ...Object.values(this.sounds)]) media.pause();
    this.button.textContent = "▶";
    this.button.setAttribute("aria-label", "Play");
  }

  // Sounds → gains → speakers and meter.
  #connect() {
    if (this.context) {
      this.context.resume();
      return;
    }
    this.context = new AudioContext();
    const out = this.context.createGain();
    out.connect(this.context.destination);
    this.gains = {};
    for (const [name, sound] of Object.entries(this.sounds)) {
      this.gains[name] = this.context.createGain();
      this.gains[name].gain.value = 0;
      this.context.createMediaElementSource(sound).connect(this.gains[name]).connect(out);
    }
    let weighted = out;
    for (const [forward, back] of weighting(this.context.sampleRate)) weighted = weighted.connect(this.context.createIIRFilter(forward, back));
    const split = weighted.connect(this.context.createChannelSplitter(2));
    this.meters = [0, 1].map((channel) => {
      const analyser = this.context.createAnalyser();
      analyser.fftSize = 32768;
      split.connect(analyser, channel);
      return analyser;
    });
    this.samples = new Float32Array(32768);
  }

  #wanted(name) {
    if (this.mode !== "mix") return name === this.mode ? 1 : 0;
    if (!this.curve || name === "B") return name === "B" ? 0 : 1;
    if (name === "original") return 10 ** (this.curve.original_db / 20);
    const { times, decibels } = this.curve.music_db, now = this.now;
    const next = times.findIndex((time) => time > now);
    if (next === 0 || times.length === 1) return 10 ** (decibels[0] / 20);
    if (next < 0) return 10 ** (decibels.at(-1) / 20);
    const share = (now - times[next - 1]) / (times[next] - times[next - 1]);
    return 10 ** ((decibels[next - 1] + share * (decibels[next] - decibels[next - 1])) / 20);
  }

  #loop() {
    for (const [name, gain] of Object.entries(this.gains)) gain.gain.setTargetAtTime(this.#wanted(name), this.context.currentTime, 0.01);
    for (const media of [this.video, ...Object.values(this.sounds)]) {
      if (media !== this.leader && media.getAttribute("src") && !media.paused && !media.seeking && Math.abs(media.currentTime - this.now) > DRIFT) media.currentTime = this.now;
    }
    this.#measure();
    this.#show();
    if (this.isPlaying) requestAnimationFrame(() => this.#loop());
    else this.pause();
  }

  #measure() {
    const count = Math.min(this.samples.length, Math.round(MOMENTARY * this.context.sampleRate));
    let power = 0;
    for (const meter of this.meters) {
      meter.getFloatTimeDomainData(this.samples);
      for (let i = this.samples.length - count; i < this.samples.length; i++) power += this.samples[i] ** 2;
    }
    const lufs = -0.691 + 10 * Math.log10(power / count + 1e-12);
    this.meter.value = Math.max(-50, lufs);
    this.level.textContent = lufs < -70 ? "– LUFS" : `${lufs.toFixed(1).replace("-", "−")} LUFS`;
  }

  #show() {
    this.time.textContent = clock(this.now);
    this.ontime(this.now);
  }
}
